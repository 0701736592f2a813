package link

import (
	"context"
	"fmt"
)

// MaxPacket is the most bytes that a packet may have. Datagrams near the path's MTU vanish, so it stays well
// below that of the narrowest path.
const MaxPacket = 1100

// Packets is what a [Conn] has beside its streams if it carries single packets that may be lost, come
// twice or in another order. A Conn without it, or whose peer has none, says so with [ErrNoPackets], and
// the caller takes a stream. Methods may be called concurrently.
type Packets interface {
	// SendPacket sends b, which it does not keep, as one packet of at most [MaxPacket] bytes. It may wait
	// while others are to be sent first.
	SendPacket(b []byte) error
	// ReceivePacket returns the next packet that arrived; it is the caller's. Its error tells why the
	// connection ended.
	ReceivePacket(ctx context.Context) ([]byte, error)
}

var _ Packets = (*conn)(nil)

// SendPacket implements [Packets].
func (c *conn) SendPacket(b []byte) error {
	if d := c.c.ConnectionState().SupportsDatagrams; !d.Local || !d.Remote {
		return ErrNoPackets
	}
	if err := c.c.SendDatagram(b); err != nil {
		return fmt.Errorf("send packet: %w", meaning(err))
	}
	return nil
}

// ReceivePacket implements [Packets].
func (c *conn) ReceivePacket(ctx context.Context) ([]byte, error) {
	b, err := c.c.ReceiveDatagram(ctx)
	if err != nil {
		return nil, fmt.Errorf("receive packet: %w", meaning(err))
	}
	return b, nil
}
