package link_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/branchline-video/branchline/federation/link"
)

// TestPackets sends single packets both ways over whatever carries some.
func TestPackets(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		ends := []link.Conn{edge, hub}
		for i, from := range ends {
			a, carries := from.(link.Packets)
			b, _ := ends[1-i].(link.Packets)
			if !carries {
				t.Skip("carries no packets: a stream takes their place")
			}
			want := bytes.Repeat([]byte{byte(i)}, link.MaxPacket)
			if err := a.SendPacket(want); err != nil {
				t.Fatal(err)
			}
			if got, err := b.ReceivePacket(t.Context()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("received %d bytes, %v", len(got), err)
			}
		}
		if err := edge.Close(0, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.(link.Packets).ReceivePacket(t.Context()); err == nil || errors.Is(err, link.ErrNoPackets) {
			t.Errorf("after the end: %v", err)
		}
	})
}
