package network

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// Protocols that IP carries.
const (
	tcp = 6
	udp = 17
)

// headerSize returns how long the IPv4 header is, 0 for what is no IPv4 packet.
func headerSize(ip []byte) int {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return 0
	}
	if n := int(ip[0]&15) * 4; n >= 20 && n <= len(ip) {
		return n
	}
	return 0
}

func protocolOf(ip []byte) byte {
	if headerSize(ip) == 0 {
		return 0
	}
	return ip[9]
}

// address is where an IPv4 packet of UDP or TCP comes from or goes to.
type address struct {
	protocol byte
	host     netip.Addr
	port     uint16
}

// ends returns where a packet comes from and goes to, and whether it has ports. Fragments have none.
func ends(ip []byte) (from, to address, ok bool) {
	n := headerSize(ip)
	if n == 0 || len(ip) < n+8 || ip[9] != udp && ip[9] != tcp || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return from, to, false
	}
	from = address{ip[9], netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(ip[n:])}
	to = address{ip[9], netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(ip[n+2:])}
	return from, to, true
}

// muchData is more than any acknowledgement or request has, in bytes of a packet.
const muchData = 700

// isData reports whether a packet carries much, and, if it is one of QUIC, not for a handshake.
func isData(ip []byte) bool {
	n := headerSize(ip)
	if n == 0 || len(ip) < muchData {
		return false
	}
	return ip[9] == tcp || ip[9] == udp && ip[n+8]&0x80 == 0
}

// setFrom and setTo change an end of a packet that has ports, and its checksums with it.
func setFrom(ip []byte, a address) { setEnd(ip, 12, 0, a) }
func setTo(ip []byte, a address)   { setEnd(ip, 16, 2, a) }

func setEnd(ip []byte, host, port int, a address) {
	n := headerSize(ip)
	old := append(append([]byte(nil), ip[host:host+4]...), ip[n+port:n+port+2]...)
	h := a.host.As4()
	copy(ip[host:], h[:])
	binary.BigEndian.PutUint16(ip[n+port:], a.port)
	adjust(ip[10:], old[:4], h[:])
	sum := n + 6
	if ip[9] == tcp {
		sum = n + 16
	}
	if len(ip) < sum+2 || ip[9] == udp && binary.BigEndian.Uint16(ip[sum:]) == 0 {
		return // a UDP packet without a checksum
	}
	adjust(ip[sum:], old, append(h[:], ip[n+port:n+port+2]...))
	if ip[9] == udp && binary.BigEndian.Uint16(ip[sum:]) == 0 {
		binary.BigEndian.PutUint16(ip[sum:], 0xffff)
	}
}

// adjust updates a checksum for bytes that changed (RFC 1624).
func adjust(sum, before, after []byte) {
	s := uint32(^binary.BigEndian.Uint16(sum))
	for i := 0; i < len(before); i += 2 {
		s += uint32(^binary.BigEndian.Uint16(before[i:])) + uint32(binary.BigEndian.Uint16(after[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}

// corrupt changes a bit behind the headers. A UDP packet loses its checksum, so that the damage arrives.
func corrupt(ip []byte, random *rand.Rand) {
	n := headerSize(ip)
	if n == 0 || len(ip) <= n+8 {
		return
	}
	if ip[9] == udp {
		binary.BigEndian.PutUint16(ip[n+6:], 0)
	}
	ip[n+8+random.IntN(len(ip)-n-8)] ^= 1 << random.IntN(8)
}
