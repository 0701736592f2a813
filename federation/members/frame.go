package members

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// memberlist's messages, by their first byte.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgNack         = 11
	msgChecksum     = 12
	msgError        = 13
)

// A packet in a link is a frame: the length of a name in one byte, the name, and memberlist's packet. From
// an edge the name is where the packet goes, from a hub it is where it comes from; none means the hub.
// Instead of the length echoAsk and echoTell make a packet by which a hub learns whether its own arrive.
const (
	echoAsk  = 0xfe
	echoTell = 0xff
	// maxName bounds a name in a frame.
	maxName = branchline.MaxID
)

func frame(name string, payload []byte) []byte {
	b := make([]byte, 0, 1+len(name)+len(payload))
	return append(append(append(b, byte(len(name))), name...), payload...)
}

// unframe returns a frame's name and payload; both are part of b.
func unframe(b []byte) (name string, payload []byte, err error) {
	if len(b) == 0 || int(b[0]) > maxName || len(b) < 2+int(b[0]) || len(b) > link.MaxPacket {
		return "", nil, fmt.Errorf("read gossip packet of %d bytes: %w", len(b), branchline.ErrInvalid)
	}
	return string(b[1 : 1+b[0]]), b[1+b[0]:], nil
}

const hubPrefix = "hub:" // no site can have a colon in its name

// HubName returns the name of a hub as a member, from what identifies it: its authority's certificate.
func HubName(authority []byte) string {
	sum := sha256.Sum256(authority)
	return hubPrefix + hex.EncodeToString(sum[:hubID])
}

// hubID is the length of what identifies a hub, in bytes.
const hubID = 8

// idOf returns the bytes in a hub's name, and whether it is one.
func idOf(name string) ([hubID]byte, bool) {
	var id [hubID]byte
	text, ok := strings.CutPrefix(name, hubPrefix)
	if !ok || len(text) != 2*hubID {
		return id, false
	}
	n, err := hex.Decode(id[:], []byte(text))
	return id, err == nil && n == hubID
}

// valid reports whether a name can be a member's.
func valid(name string) bool {
	_, hub := idOf(name)
	return hub || branchline.SiteID(name).Check() == nil
}

// addrOf is the address that the node with the name advertises: memberlist wants one, and nobody dials it.
// It is made of the name alone, so that one that is forged can be told.
func addrOf(name string) net.IP {
	sum := sha256.Sum256([]byte(name))
	return net.IPv4(10, sum[0], sum[1], sum[2]).To4()
}

// message is what is read of memberlist's messages.
type message struct {
	Node       string
	From       string
	SourceNode string
	Addr       []byte
	Port       uint16
	Meta       []byte
}

// screen reads packets before memberlist does.
type screen struct {
	known func(name string) bool
	saw   func(kind byte, m message) // is told of suspect, alive and dead
}

// pass returns what of a packet from the node named from may go on; nil for nothing.
func (s screen) pass(from string, b []byte) []byte {
	if len(b) > 5 && b[0] == msgChecksum {
		b = b[5:]
	}
	if len(b) < 2 || b[0] != msgCompound {
		if s.good(from, b) {
			return b
		}
		return nil
	}
	parts, whole := split(b)
	if whole && !slices.ContainsFunc(parts, func(p []byte) bool { return !s.good(from, p) }) {
		return b
	}
	return join(slices.DeleteFunc(parts, func(p []byte) bool { return !s.good(from, p) }))
}

func split(b []byte) (parts [][]byte, whole bool) {
	n := int(b[1])
	if len(b) < 2+2*n {
		return nil, false
	}
	rest := b[2+2*n:]
	for i := range n {
		size := int(binary.BigEndian.Uint16(b[2+2*i:]))
		if size > len(rest) {
			return parts, false
		}
		parts, rest = append(parts, rest[:size]), rest[size:]
	}
	return parts, true
}

func join(parts [][]byte) []byte {
	if len(parts) == 0 {
		return nil
	}
	b := []byte{msgCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

// good reports whether a single message is of a known kind, names nobody who is not known and does not
// speak for another.
func (s screen) good(from string, b []byte) bool {
	if len(b) < 2 {
		return false
	}
	var m message
	switch b[0] {
	case msgAck, msgNack:
		return true
	case msgPing, msgIndirectPing, msgSuspect, msgAlive, msgDead:
		if codec.NewDecoderBytes(b[1:], &codec.MsgpackHandle{}).Decode(&m) != nil {
			return false
		}
	default: // user messages, compression, encryption: not used here
		return false
	}
	switch b[0] {
	case msgPing, msgIndirectPing:
		return m.SourceNode == from && valid(m.Node)
	case msgAlive:
		if !s.known(m.Node) || !sound(m.Node, m.Addr, m.Port, m.Meta) {
			return false
		}
	default:
		if !s.known(m.Node) || !valid(m.From) {
			return false
		}
	}
	s.saw(b[0], m)
	return true
}

// sound reports whether a member's address is its own and its word not too long.
func sound(name string, addr []byte, port uint16, meta []byte) bool {
	return net.IP(addr).Equal(addrOf(name)) && port == link.DefaultPort && len(meta) <= maxMeta
}

// maxHubs bounds the hubs of which a member tells how it is linked.
const maxHubs = 8

// maxMeta bounds what a member tells of itself.
const maxMeta = 1 + maxHubs*(hubID+1)

// tie is how a member says that it is linked to a hub.
type tie byte

const (
	tieUp      tie = 1
	tieDown    tie = 2
	tieUnheard tie = 3 // down; that hub's bytes came, and it got none of the member's
)

// word is a member's word of its links, by the hubs' names.
type word map[string]tie

func (w word) encode() []byte {
	b := []byte{1}
	names := make([]string, 0, len(w))
	for name := range w {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), maxHubs)] {
		if id, ok := idOf(name); ok {
			b = append(append(b, id[:]...), byte(w[name]))
		}
	}
	return b
}

func decodeWord(b []byte) word {
	w := word{}
	if len(b) == 0 || b[0] != 1 {
		return w
	}
	for b = b[1:]; len(b) > hubID; b = b[hubID+1:] {
		w[hubPrefix+hex.EncodeToString(b[:hubID])] = tie(b[hubID])
	}
	return w
}
