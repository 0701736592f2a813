package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

const (
	watchTime = 10 * time.Second // to be let in
	// oldTime is how long what comes may be of before somebody began to watch: what was since the last key frame.
	oldTime = 3 * time.Second
)

// Viewer is somebody at the centre who watches a stream live. It is for one goroutine; Close may be called by any.
type Viewer struct {
	conn  *websocket.Conn
	scale float64 // ticks a second
}

// Watch begins to watch a stream, given by its whole name.
func (w *World) Watch(ctx context.Context, stream string) (*Viewer, error) {
	dialer := websocket.Dialer{NetDialContext: w.Dial(Centre), HandshakeTimeout: watchTime}
	url := "ws" + w.base[len("http"):] + "/api/v1/streams/" + stream + "/live"
	c, res, err := dialer.DialContext(ctx, url, http.Header{"Authorization": {"Bearer " + w.bearer}})
	if res != nil {
		res.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", stream, err)
	}
	return &Viewer{conn: c}, nil
}

// Next returns the own time of the next fragment, or the next message in words.
func (v *Viewer) Next() (fragment time.Time, words []byte, err error) {
	for {
		kind, m, err := v.conn.ReadMessage()
		if err != nil {
			return time.Time{}, nil, err
		}
		if kind != websocket.BinaryMessage {
			return time.Time{}, m, nil
		}
		if at := box(m, "mdhd"); len(at) > 24 {
			v.scale = timescale(at)
		}
		if at := box(m, "tfdt"); len(at) >= 12 && v.scale > 0 {
			own := float64(binary.BigEndian.Uint64(at[4:])) / v.scale
			return time.Unix(0, int64(own*float64(time.Second))), nil, nil
		}
	}
}

// Close ends the viewer, and a Next that waits.
func (v *Viewer) Close() error { return v.conn.Close() }

// Delays watches a stream for so long and returns how much after its own time each fragment came, sorted; the first
// ones, late by nature, are left out. It gives heard what comes in words, and ends when that returns true.
func (w *World) Delays(ctx context.Context, stream string, during time.Duration, heard func(words []byte) bool) (
	[]time.Duration, error,
) {
	v, err := w.Watch(ctx, stream)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	began := time.Now()
	if err := v.conn.SetReadDeadline(began.Add(during + watchTime)); err != nil {
		return nil, err
	}
	var late []time.Duration
	for time.Since(began) < during {
		at, words, err := v.Next()
		if err != nil {
			return late, fmt.Errorf("watch %s: %w", stream, err)
		}
		switch {
		case words != nil && heard != nil && heard(words):
			return late, nil
		case words == nil && time.Since(began) > oldTime:
			late = append(late, time.Since(at))
		}
	}
	slices.Sort(late)
	return late, nil
}

// box returns what follows the name of a box, wherever it is in a file.
func box(file []byte, name string) []byte {
	for i := 0; i+4 <= len(file); i++ {
		if string(file[i:i+4]) == name {
			return file[i+4:]
		}
	}
	return nil
}

// timescale reads that of an mdhd box of either version.
func timescale(mdhd []byte) float64 {
	if mdhd[0] == 1 {
		return float64(binary.BigEndian.Uint32(mdhd[20:]))
	}
	return float64(binary.BigEndian.Uint32(mdhd[12:]))
}
