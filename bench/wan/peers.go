package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/branchline-video/branchline/e2e/network"
)

const mega = 1e6

// bbr returns the goodput of kernel TCP with BBR in Mbit/s, from the branch to the centre.
func bbr(ctx context.Context, n *network.Network, during time.Duration) (float64, error) {
	hub := n.Links[0].Addr(network.Centre).String()
	server := n.Command(network.Centre, "iperf3", "-s", "-1", "-B", hub)
	if err := server.Start(); err != nil {
		return 0, fmt.Errorf("iperf3: %w: sudo apt-get install iperf3", err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	// It listens when its port takes a connection; looking into the kernel's table uses none up.
	_, err := network.Until(ctx, 20*time.Millisecond, 5*time.Second, func() bool {
		out, err := n.Command(network.Centre, "ss", "-Hltn", "sport = :5201").Output()
		return err == nil && len(bytes.TrimSpace(out)) > 0
	})
	if err != nil {
		return 0, fmt.Errorf("iperf3 does not listen: %w", err)
	}
	seconds := fmt.Sprint(int(during.Seconds()))
	out, err := n.Command(network.Branch, "iperf3", "-J", "-c", hub, "-C", "bbr", "-t", seconds).Output()
	var end *exec.ExitError
	if err != nil && !errors.As(err, &end) {
		return 0, err
	}
	var told struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Congestion string `json:"sender_tcp_congestion"`
		}
	}
	if err := json.Unmarshal(out, &told); err != nil || told.Error != "" {
		return 0, fmt.Errorf("iperf3: %w: %s", err, told.Error)
	}
	if !strings.HasPrefix(told.End.Congestion, "bbr") {
		return 0, fmt.Errorf("iperf3 used %q for congestion control, not BBR", told.End.Congestion)
	}
	return told.End.Received.Rate / mega, nil
}

// quicConfig is quic-go's own, but for windows that are no limit here.
func quicConfig() *quic.Config {
	return &quic.Config{
		InitialPacketSize: 1200, InitialStreamReceiveWindow: 8 << 20, MaxStreamReceiveWindow: 32 << 20,
		InitialConnectionReceiveWindow: 8 << 20, MaxConnectionReceiveWindow: 64 << 20,
	}
}

// plainQUIC returns the goodput of one stream of one connection of quic-go in Mbit/s. The sockets' functions
// say where the ends are.
func plainQUIC(ctx context.Context, from, to func(string) (net.PacketConn, error), addr string,
	during time.Duration) (float64, error) {
	server, err := to(addr)
	if err != nil {
		return 0, err
	}
	defer server.Close()
	client, err := from(":0")
	if err != nil {
		return 0, err
	}
	defer client.Close()
	conf, err := selfSigned()
	if err != nil {
		return 0, err
	}
	l, err := quic.Listen(server, conf, quicConfig())
	if err != nil {
		return 0, err
	}
	defer l.Close()
	c, err := quic.Dial(ctx, client, server.LocalAddr(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: conf.NextProtos,
	}, quicConfig())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	go func() {
		s, err := c.OpenUniStream()
		if err != nil {
			return
		}
		for b := make([]byte, 1<<16); err == nil; {
			_, err = s.Write(b)
		}
	}()
	in, err := l.Accept(ctx)
	if err != nil {
		return 0, err
	}
	s, err := in.AcceptUniStream(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.SetReadDeadline(began.Add(during)); err != nil {
		return 0, err
	}
	got, err := io.Copy(io.Discard, s)
	var late net.Error
	if err != nil && (!errors.As(err, &late) || !late.Timeout()) {
		return 0, err
	}
	return float64(got) * 8 / mega / time.Since(began).Seconds(), nil
}

func selfSigned() (*tls.Config, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, pub, key)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"bench"},
	}, err
}
