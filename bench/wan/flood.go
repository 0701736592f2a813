package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/e2e/network"
)

const (
	floodRate  = 5000 // Initials a second
	floodTime  = 20 * time.Second
	floodKinds = 1000 // different ones, from as many attempts to connect
)

// flood sends the first packets of handshakes to a hub, real ones from addresses that are not the sender's,
// while a site is linked.
func flood(ctx context.Context, b *bench) error {
	w, err := network.OpenWorld(network.Plan{
		Binary: b.binary, Dir: b.dir, Seed: 1, Link: "delay=20ms", Cameras: 1, Kbits: 500,
	})
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Linked(ctx, 1, 20*time.Second); err != nil {
		return err
	}
	progress("making %d Initials", floodKinds)
	initials := initials(ctx)
	if len(initials) < floodKinds/2 {
		return fmt.Errorf("only %d Initials could be made", len(initials))
	}
	l := w.Links[0]
	up, down := l.Stats(network.Branch), l.Stats(network.Centre)
	links, err := w.Metric(network.Branch, "branchline_edge_link_sent_bytes")
	if err != nil {
		return err
	}
	before := float64(w.Hub.Memory("VmRSS")) / mega
	sent, err := spoof(ctx, w.Network, initials)
	if err != nil {
		return err
	}
	if err := wait(ctx, 2*time.Second); err != nil {
		return err
	}
	got := float64(l.Stats(network.Branch).Bytes - up.Bytes)
	answered := float64(l.Stats(network.Centre).Bytes - down.Bytes)
	after, err := w.Metric(network.Branch, "branchline_edge_link_sent_bytes")
	if err != nil {
		return err
	}
	survived := 0.0
	if after > links { // it counts from zero on a new link
		survived = 1
	}
	b.figures = append(b.figures,
		report.Figure{What: "bytes answered to a byte of spoofed Initials", Unit: "bytes", Got: []float64{answered / got},
			Limit: 3},
		report.Figure{What: "Initials sent a second", Unit: "", Got: []float64{float64(sent) / floodTime.Seconds()}},
		report.Figure{What: "the linked site's link goes on", Unit: "(1: yes)", Got: []float64{survived}, Limit: 1,
			More: true},
		report.Figure{What: "hub, memory at its peak (VmHWM)", Unit: "MB",
			Got: []float64{float64(w.Hub.Memory("VmHWM")) / mega}, Limit: 1000},
		report.Figure{What: "hub, memory before", Unit: "MB", Got: []float64{before}})
	b.note("%d real Initials of quic-go, again and again for %v, each time from another address; all handshakes are "+
		"left half open. Bytes are those of IP packets on the link, the linked site's included.", len(initials), floodTime)
	return nil
}

// taker takes what is written and never has anything to read.
type taker struct {
	net.PacketConn
	packet []byte
}

func (t *taker) WriteTo(b []byte, _ net.Addr) (int, error) {
	if t.packet == nil && len(b) >= 1200 {
		t.packet = append([]byte(nil), b...)
	}
	return len(b), nil
}

// initials returns the first packets of attempts to connect.
func initials(ctx context.Context) (all [][]byte) {
	for range floodKinds {
		p, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return all
		}
		t := &taker{PacketConn: p}
		dial, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		_, _ = quic.Dial(dial, t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{"branchline/1"},
		}, &quic.Config{InitialPacketSize: 1200}) // nobody answers
		cancel()
		p.Close()
		if t.packet != nil {
			all = append(all, t.packet)
		}
	}
	return all
}

// spoof sends the Initials from the branch to the hub and returns how many it sent.
func spoof(ctx context.Context, n *network.Network, initials [][]byte) (sent int, err error) {
	var raw int
	err = n.In(network.Branch, func() error {
		raw, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("open a raw socket: %w", err)
	}
	defer syscall.Close(raw)
	to := syscall.SockaddrInet4{Addr: n.Links[0].Addr(network.Centre).As4()}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < floodTime; {
		for due := int(time.Since(began).Seconds() * floodRate); sent < due; sent++ {
			p := initials[sent%len(initials)]
			if err := syscall.Sendto(raw, datagram(sent, to.Addr, p), 0, &to); err != nil {
				return sent, fmt.Errorf("send: %w", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		}
	}
	return sent, nil
}

// datagram is a UDP packet to the hub from the i-th of many addresses. The kernel fills in IP's checksum, and
// UDP's may be left out.
func datagram(i int, to [4]byte, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, syscall.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	copy(b[12:], []byte{10, 77, 0, byte(10 + i%240)})
	copy(b[16:], to[:])
	binary.BigEndian.PutUint16(b[20:], uint16(1024+i%60000))
	binary.BigEndian.PutUint16(b[22:], 7563)
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	return append(b, payload...)
}
