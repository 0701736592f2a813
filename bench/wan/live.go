package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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

// delays watches the first camera and returns how late each fragment came, in ms, sorted.
func delays(ctx context.Context, w *network.World, during time.Duration) ([]float64, error) {
	seen, err := w.See(ctx, network.Site+"."+network.Camera(0)+".main", during, nil)
	if err == nil && len(seen.Late) < 20 {
		err = fmt.Errorf("only %d fragments came in %v", len(seen.Late), during)
	}
	all := make([]float64, len(seen.Late))
	for i, l := range seen.Late {
		all[i] = l.Seconds() * 1000
	}
	return all, err
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
