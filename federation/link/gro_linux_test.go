package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestGRO sends trains of packets, each train with one call, and reads them one by one, in order, with their bounds
// and their sender. The kernel need not have joined them, but then this test shows nothing, and says so.
func TestGRO(t *testing.T) {
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from, in := open(), withGRO(open())
	if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var sent [][]byte
	for i, train := range []struct{ size, last, packets int }{
		{1200, 1200, 1}, {1200, 7, 15}, {1000, 1000, 40}, {1, 1, 3}, {1400, 100, 2}, {300, 200, 5}, {1200, 1200, 12},
	} {
		var all []byte
		for n := range train.packets {
			size := train.size
			if n == train.packets-1 {
				size = train.last
			}
			p := bytes.Repeat([]byte{byte(17*i + n)}, size)
			sent, all = append(sent, p), append(all, p...)
		}
		var control []byte
		if train.packets > 1 {
			control = segmentSize(uint16(train.size))
		}
		if _, _, err := from.WriteMsgUDP(all, control, in.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
	}
	var came [][]byte
	calls, joined := 0, false
	for len(came) < len(sent) {
		batch := make([]ipv4.Message, 8)
		for i := range batch {
			batch[i].Buffers, batch[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
		}
		n, err := in.ReadBatch(batch, 0)
		if err != nil || n == 0 {
			t.Fatalf("%d packets, %v", n, err)
		}
		calls, joined = calls+1, joined || in.packet < len(in.next[0].Buffers[0][:in.next[0].N])
		for _, m := range batch[:n] {
			if fmt.Sprint(m.Addr) != fmt.Sprint(from.LocalAddr()) {
				t.Errorf("packet of %v", m.Addr)
			}
			came = append(came, m.Buffers[0][:m.N])
		}
	}
	for i := range sent {
		if !bytes.Equal(came[i], sent[i]) {
			t.Errorf("packet %d of %d bytes came with %d", i, len(sent[i]), len(came[i]))
		}
	}
	t.Logf("%d packets in %d calls; the kernel joins packets: %v", len(came), calls, joined)
}

// segmentSize returns the control message by which the kernel cuts what is sent into packets of that size.
func segmentSize(size uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], size)
	return b
}
