package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/branchline-video/branchline/bench/report"
)

// What is recorded for the processor's time.
const (
	cpuStreams = 32
	cpuKbits   = 4000
	// settleIn is the time after all streams are recorded until rings are full and memory stays as it is.
	settleIn = 20 * time.Second
)

// cpu compares the processor time of an edge with that of MediaMTX for recording the same cameras.
func cpu(ctx context.Context, b *bench) error {
	peer, err := exec.LookPath("mediamtx")
	if err != nil {
		progress("cpu: there is no mediamtx on PATH, so the edge is measured alone")
		b.note("There was no `mediamtx` on PATH, so nothing is compared.")
	}
	cams, err := b.cameras(cpuStreams, cpuKbits)
	if err != nil {
		return err
	}
	defer cams.end(syscall.SIGTERM)
	shares := report.Figure{What: "edge, processor time for each stream", Unit: "% of a core", Name: "MediaMTX",
		Limit: 1.0}
	sizes := report.Figure{What: "edge, bytes recorded", Unit: "MB", Name: "MediaMTX"}
	for range b.rounds {
		got, err := b.recordTogether(ctx, cams, peer)
		if err != nil {
			return err
		}
		progress("cpu: edge, then MediaMTX if there is one: %.4v", got)
		shares.Got, sizes.Got = append(shares.Got, got[0].share), append(sizes.Got, got[0].bytes)
		if peer != "" {
			shares.Peer, sizes.Peer = append(shares.Peer, got[1].share), append(sizes.Peer, got[1].bytes)
		}
	}
	if peer == "" {
		shares.Limit = 0
	}
	b.figures = append(b.figures, shares, sizes)
	if peer != "" {
		version, _ := exec.Command(peer, "--version").Output()
		b.note("MediaMTX %s, recording fMP4, parts of a second and files of a minute, everything else switched off.",
			strings.TrimSpace(string(version)))
	}
	b.note("%d streams of %d kbit/s, 640x360 at 25 frames a second, without sound, over RTSP in TCP, for %v; user and"+
		" kernel time of the recording process, both at the same time. The aim is a ratio of 0.7.",
		cpuStreams, cpuKbits, b.seconds)
	return nil
}

// recording is what a program took: the share of a core for each stream, in percent, and the MB it recorded.
type recording struct{ share, bytes float64 }

// recordTogether has all programs record the same cameras in the same time, so that whatever else the machine has
// to do hits them alike.
func (b *bench) recordTogether(ctx context.Context, cams *cameras, peer string) ([]recording, error) {
	dir := filepath.Join(b.dir, "edge")
	defer os.RemoveAll(dir)
	e, err := b.edge(dir, cams.urls)
	if err != nil {
		return nil, err
	}
	defer e.end(syscall.SIGTERM)
	all := []*process{e.process}
	sizes := []func() (float64, error){func() (float64, error) { return e.sum("written_bytes_total") }}
	if err := e.recording(ctx, cpuStreams); err != nil {
		return nil, err
	}
	if peer != "" {
		dir := filepath.Join(b.dir, "mediamtx")
		defer os.RemoveAll(dir)
		p, err := b.mediamtx(ctx, dir, peer, cams)
		if err != nil {
			return nil, err
		}
		defer p.end(syscall.SIGTERM)
		all = append(all, p)
		sizes = append(sizes, func() (float64, error) { return sizeOf(dir) })
	}
	if err := wait(ctx, settleIn); err != nil {
		return nil, err
	}
	took := make([]recording, len(all))
	began := time.Now()
	for _, sign := range []float64{-1, 1} {
		for i, p := range all {
			used, err := p.processor()
			size, err2 := sizes[i]()
			if err := errors.Join(err, err2); err != nil {
				return nil, err
			}
			took[i].share += sign * used.Seconds()
			took[i].bytes += sign * size / 1e6
		}
		if sign > 0 {
			break
		}
		if err := wait(ctx, b.seconds); err != nil {
			return nil, err
		}
	}
	for i := range took {
		took[i].share *= 100 / time.Since(began).Seconds() / cpuStreams
	}
	if lost, err := e.sum("lost_packets_total"); err != nil || lost > 0 {
		return nil, fmt.Errorf("the edge lost %v packets: %w", lost, err)
	}
	return took, nil
}

// mediamtxConfig leaves only recording on.
const mediamtxConfig = `logLevel: warn
rtsp: no
rtmp: no
hls: no
webrtc: no
srt: no
moq: no
pathDefaults:
  rtspTransport: tcp
  record: yes
  recordPath: %s/%%path/%%Y-%%m-%%d_%%H-%%M-%%S-%%f
  recordFormat: fmp4
  recordPartDuration: 1s
  recordSegmentDuration: 1m
  recordDeleteAfter: 0s
paths:
`

// mediamtx starts MediaMTX and waits until it records all cameras below dir.
func (b *bench) mediamtx(ctx context.Context, dir, binary string, cams *cameras) (*process, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(mediamtxConfig, dir)
	for i, u := range cams.urls {
		config += fmt.Sprintf("  %s: {source: %q}\n", cameraName(i), u)
	}
	file := filepath.Join(dir, "mediamtx.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := start(dir, 0, binary, file)
	if err != nil {
		return nil, err
	}
	err = until(ctx, 100*time.Millisecond, func() (bool, error) {
		select {
		case <-p.done:
			text, _ := os.ReadFile(p.log.Name())
			return false, fmt.Errorf("mediamtx ended: %s", text)
		default:
		}
		n := 0
		for i := range cpuStreams {
			files, _ := filepath.Glob(filepath.Join(dir, cameraName(i), "*.mp4"))
			n += min(len(files), 1)
		}
		return n == cpuStreams, nil
	})
	if err != nil {
		p.end(syscall.SIGKILL)
	}
	return p, err
}

// sizeOf adds up the files below a directory.
func sizeOf(dir string) (total float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += float64(info.Size())
		}
		return err
	})
	return total, err
}
