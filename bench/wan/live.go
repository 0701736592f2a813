package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/gorilla/websocket"

	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/e2e/network"
)

// live measures how late frames come to a viewer at the centre, while nothing else goes on and while a
// retrieval takes all that the link has.
func live(ctx context.Context, b *bench) error {
	idle := report.Figure{What: "p95 delay of frames, idle", Unit: "ms"}
	busy := report.Figure{What: "p95 delay of frames, during a retrieval", Unit: "ms"}
	rate := report.Figure{What: "carried by the link meanwhile", Unit: "Mbit/s"}
	frames := 0
	for range b.rounds {
		before, during, carried, err := liveOnce(ctx, b)
		if err != nil {
			return err
		}
		p95 := func(all []float64) float64 { return all[len(all)*95/100] }
		idle.Got, busy.Got = append(idle.Got, p95(before)), append(busy.Got, p95(during))
		rate.Got, frames = append(rate.Got, carried), frames+len(during)
	}
	busy.Limit = report.Median(idle.Got) + 150
	b.figures = append(b.figures, idle, busy, rate)
	b.note("From a frame's own time to its arrival at a viewer of the hub, on a link of 20 Mbit/s and 80 ms, one camera "+
		"of %d kbit/s watched. %d frames during retrievals of a minute of %d cameras.", liveKbits, frames, liveCameras)
	return nil
}

const liveCameras, liveKbits = 8, 4000

// liveOnce returns how late frames came before and during a retrieval, in ms, and what the link carried then, in
// Mbit/s.
func liveOnce(ctx context.Context, b *bench) (idle, busy []float64, rate float64, err error) {
	if err := errors.Join(os.RemoveAll(b.dir), os.MkdirAll(b.dir, 0o755)); err != nil {
		return nil, nil, 0, err
	}
	w, err := network.OpenWorld(network.Plan{
		Binary: b.binary, Dir: b.dir, Seed: 1, Link: "rate=20mbit delay=40ms", Cameras: liveCameras, Kbits: liveKbits,
		Segment: 10 * time.Second,
	})
	if err != nil {
		return nil, nil, 0, err
	}
	defer w.Close()
	if _, err := w.Linked(ctx, 1, 20*time.Second); err != nil {
		return nil, nil, 0, err
	}
	began := time.Now()
	const footage = time.Minute // twice as long to bring as to measure
	if err := wait(ctx, footage+5*time.Second); err != nil {
		return nil, nil, 0, err
	}
	if idle, err = delays(ctx, w, 15*time.Second); err != nil {
		return nil, nil, 0, err
	}
	var streams []string
	for i := range liveCameras {
		streams = append(streams, network.Site+"."+network.Camera(i)+".main")
	}
	order := map[string]any{"streams": streams, "from": began.UTC(), "to": began.Add(footage).UTC()}
	if err := w.Call("POST", "/api/v1/retrievals", order, nil); err != nil {
		return nil, nil, 0, err
	}
	if err := wait(ctx, 3*time.Second); err != nil {
		return nil, nil, 0, err
	}
	sent := w.Links[0].Stats(network.Branch).Bytes
	const during = 25 * time.Second
	if busy, err = delays(ctx, w, during); err != nil {
		return nil, nil, 0, err
	}
	return idle, busy, float64(w.Links[0].Stats(network.Branch).Bytes-sent) * 8 / mega / during.Seconds(), nil
}

// delays watches the first camera and returns how late each frame came, in ms, sorted.
func delays(ctx context.Context, w *network.World, during time.Duration) ([]float64, error) {
	dialer := websocket.Dialer{NetDialContext: w.Dial(network.Centre), HandshakeTimeout: 10 * time.Second}
	url := "ws://127.0.0.1:8480/api/v1/streams/" + network.Site + "." + network.Camera(0) + ".main/live"
	c, res, err := dialer.DialContext(ctx, url, http.Header{"Authorization": {"Bearer " + w.Bearer()}})
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	res.Body.Close()
	defer c.Close()
	var all []float64
	scale := 0.0
	began := time.Now()
	if err := c.SetReadDeadline(began.Add(during + 20*time.Second)); err != nil {
		return nil, err
	}
	for time.Since(began) < during {
		kind, m, err := c.ReadMessage()
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		now := float64(time.Now().UnixNano()) / 1e9
		if kind != websocket.BinaryMessage {
			continue
		}
		if at := box(m, "mdhd"); len(at) > 24 {
			scale = timescale(at)
		}
		// The first frames are those since the last key frame, late by nature.
		if at := box(m, "tfdt"); len(at) >= 12 && scale > 0 && time.Since(began) > 3*time.Second {
			all = append(all, (now-float64(binary.BigEndian.Uint64(at[4:]))/scale)*1000)
		}
	}
	if len(all) < 20 {
		return nil, fmt.Errorf("only %d frames came in %v", len(all), during)
	}
	slices.Sort(all)
	return all, nil
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

// idle counts what a site sends and gets while nobody watches and no policy wants anything.
func idle(ctx context.Context, b *bench) error {
	w, err := network.OpenWorld(network.Plan{
		Binary: b.binary, Dir: b.dir, Seed: 1, Link: "rate=20mbit delay=40ms", Cameras: 16, Kbits: 500,
	})
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Linked(ctx, 1, 20*time.Second); err != nil {
		return err
	}
	if err := wait(ctx, 20*time.Second); err != nil {
		return err
	}
	f := report.Figure{What: "16 cameras, nothing watched", Unit: "kbit/s", Limit: 4}
	for range b.rounds {
		before := w.Links[0].Stats(network.Branch).Bytes + w.Links[0].Stats(network.Centre).Bytes
		const during = 2 * time.Minute // each camera seals two segments
		if err := wait(ctx, during); err != nil {
			return err
		}
		sent := w.Links[0].Stats(network.Branch).Bytes + w.Links[0].Stats(network.Centre).Bytes - before
		f.Got = append(f.Got, float64(sent)*8/1000/during.Seconds())
	}
	b.figures = append(b.figures, f)
	b.note("Both directions together, with all headers; segments of a minute, of each of which the hub is told.")
	return nil
}
