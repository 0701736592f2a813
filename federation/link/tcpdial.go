package link

import (
	"context"
	"crypto/tls"
	"net"
)

// dialTCP connects over TCP.
func dialTCP(ctx context.Context, addr *net.UDPAddr, opt Options) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	dial := opt.DialStream
	if dial == nil {
		dial = opt.Local.dialStream
	}
	raw, err := dial(ctx, addr.String())
	if err != nil {
		return nil, err
	}
	on := &socket{Conn: raw}
	c := tls.Client(on, guarded(opt.TLS))
	if err := c.HandshakeContext(ctx); err != nil {
		on.abort()
		return nil, handshakeError(err)
	}
	peer := peerOf(c.ConnectionState(), raw.RemoteAddr(), CarrierTCP)
	peer.Uplink = opt.Local.Name
	return newTCP(c, on, peer, true), nil
}

// peerOf returns who is on the other side, but for its name.
func peerOf(state tls.ConnectionState, addr net.Addr, carrier Carrier) Peer {
	p := Peer{Protocol: state.NegotiatedProtocol, Addr: addr.String(), Carrier: carrier}
	if len(state.PeerCertificates) > 0 {
		p.Leaf = state.PeerCertificates[0].Raw
	}
	return p
}
