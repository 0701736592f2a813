package link

import (
	"context"
	"fmt"
)

// packetsHeld bounds the packets that have arrived and that nobody has taken yet; one more is lost.
const packetsHeld = 64

var (
	_ Packets = (*bundle)(nil)
	_ Packets = (*counted)(nil)
)

// SendPacket implements [Packets], on the connection that is best for it.
func (b *bundle) SendPacket(p []byte) error {
	b.mu.Lock()
	if len(b.conns) == 0 {
		defer b.mu.Unlock()
		return fmt.Errorf("send packet: %w", b.end)
	}
	best := b.conns[0]
	for _, j := range b.conns[1:] {
		switch {
		case j.bulk != best.bulk: // what is for bulk carries no packets
			if best.bulk {
				best = j
			}
		case best.leaving || !j.leaving && j.view.cost.Load() < best.view.cost.Load(): // as bits: both are positive
			best = j
		}
	}
	b.mu.Unlock()
	if c, ok := best.conn.(Packets); ok {
		return c.SendPacket(p)
	}
	return ErrNoPackets
}

// ReceivePacket implements [Packets].
func (b *bundle) ReceivePacket(ctx context.Context) ([]byte, error) {
	select {
	case p := <-b.packets:
		return p, nil
	case <-b.done:
		b.mu.Lock()
		defer b.mu.Unlock()
		return nil, fmt.Errorf("receive packet: %w", b.end)
	case <-ctx.Done():
		return nil, fmt.Errorf("receive packet: %w", ctx.Err())
	}
}

// collect takes the packets of one connection until that ends.
func (b *bundle) collect(j *joined) {
	c, ok := j.conn.(Packets)
	for ok {
		p, err := c.ReceivePacket(context.Background())
		if err != nil {
			return
		}
		select {
		case b.packets <- p:
		default:
		}
	}
}

func (c *counted) SendPacket(p []byte) error {
	if packets, ok := c.Conn.(Packets); ok {
		return packets.SendPacket(p)
	}
	return ErrNoPackets
}

func (c *counted) ReceivePacket(ctx context.Context) ([]byte, error) {
	if packets, ok := c.Conn.(Packets); ok {
		return packets.ReceivePacket(ctx)
	}
	return nil, ErrNoPackets
}
