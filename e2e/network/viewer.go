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

// Seen is how a stream came to a viewer.
type Seen struct {
	First time.Duration   // until something came that was made after the viewer had asked; zero: nothing did
	Late  []time.Duration // how much after its own time each fragment came, but for the first ones, late by nature; sorted
}

// See watches a stream for so long. It gives heard what comes in words, and ends when that returns true; nil: nobody
// hears.
func (w *World) See(ctx context.Context, stream string, during time.Duration, heard func(words []byte) bool) (
	s Seen, err error,
) {
	began := time.Now()
	v, err := w.Watch(ctx, stream)
	if err != nil {
		return s, err
	}
	defer v.Close()
	if err := v.conn.SetReadDeadline(began.Add(during + watchTime)); err != nil {
		return s, err
	}
	for time.Since(began) < during {
		at, words, err := v.Next()
		if err != nil {
			return s, fmt.Errorf("watch %s: %w", stream, err)
		}
		if words != nil {
			if heard != nil && heard(words) {
				return s, nil
			}
			continue
		}
		if s.First == 0 && at.After(began) {
			s.First = time.Since(began)
		}
		if time.Since(began) > oldTime {
			s.Late = append(s.Late, time.Since(at))
		}
	}
	slices.Sort(s.Late)
	return s, nil
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
