package ingest

import (
	"bufio"
	"context"
	"net"
)

// readBuffer is how much is read from a camera at once, so that a frame takes one or two system calls and not
// one for every few packets: the library itself reads four kilobytes at a time.
const readBuffer = 32 << 10

// bufferedConn is a connection that reads ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return bufferedConn{c, bufio.NewReaderSize(c, readBuffer)}, nil
}
