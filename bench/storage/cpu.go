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
)

// What is recorded for the processor's time.
const (
	cpuStreams = 32
	cpuKbits   = 4000
	settleIn   = 5 * time.Second // after all streams are recorded, before the time is taken
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
	shares := figure{what: "edge, processor time for each stream", unit: "% of a core", name: "MediaMTX", limit: 1.0}
	sizes := figure{what: "edge, bytes recorded", unit: "MB", name: "MediaMTX"}
	for round := range b.rounds {
		var share, bytes [2]float64
		for i := range 2 {
			which := (i + round) % 2
			switch {
			case which == 0:
				share[0], bytes[0], err = b.edgeCPU(ctx, cams)
			case peer != "":
				share[1], bytes[1], err = b.mediamtxCPU(ctx, peer, cams)
			}
			if err != nil {
				return err
			}
		}
		progress("cpu: edge %.3f %%, MediaMTX %.3f %% a stream; %.0f and %.0f MB", share[0], share[1], bytes[0], bytes[1])
		shares.got, sizes.got = append(shares.got, share[0]), append(sizes.got, bytes[0])
		if peer != "" {
			shares.peer, sizes.peer = append(shares.peer, share[1]), append(sizes.peer, bytes[1])
		}
	}
	if peer == "" {
		shares.limit = 0
	}
	b.figures = append(b.figures, shares, sizes)
	if peer != "" {
		version, _ := exec.Command(peer, "--version").Output()
		b.note("MediaMTX %s, recording fMP4, parts of a second and files of a minute, everything else switched off.",
			strings.TrimSpace(string(version)))
	}
	b.note("%d streams of %d kbit/s, 640x360 at 25 frames a second, without sound, over RTSP in TCP, for %v; user and"+
		" kernel time of the recording process. The aim is a ratio of 0.7.", cpuStreams, cpuKbits, b.seconds)
	return nil
}

// takeCPU returns the share of a core that each stream takes, in percent, and the MB that were recorded.
func (b *bench) takeCPU(ctx context.Context, p *process, size func() (float64, error)) (float64, float64, error) {
	if err := wait(ctx, settleIn); err != nil {
		return 0, 0, err
	}
	from, err := size()
	if err != nil {
		return 0, 0, err
	}
	used, err := p.processor()
	began := time.Now()
	if err != nil {
		return 0, 0, err
	}
	if err := wait(ctx, b.seconds); err != nil {
		return 0, 0, err
	}
	now, err := p.processor()
	took := time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	to, err := size()
	return float64(now-used) / float64(took) / cpuStreams * 100, (to - from) / 1e6, err
}

func (b *bench) edgeCPU(ctx context.Context, cams *cameras) (share, bytes float64, err error) {
	dir := filepath.Join(b.dir, "edge")
	defer os.RemoveAll(dir)
	e, err := b.edge(dir, cams.urls)
	if err != nil {
		return 0, 0, err
	}
	defer e.end(syscall.SIGTERM)
	if err := e.recording(ctx, cpuStreams); err != nil {
		return 0, 0, err
	}
	share, bytes, err = b.takeCPU(ctx, e.process, func() (float64, error) { return e.sum("written_bytes_total") })
	if lost, e := e.sum("lost_packets_total"); e == nil && lost > 0 {
		err = errors.Join(err, fmt.Errorf("the edge lost %v packets", lost))
	}
	return share, bytes, err
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

func (b *bench) mediamtxCPU(ctx context.Context, binary string, cams *cameras) (share, bytes float64, err error) {
	dir := filepath.Join(b.dir, "mediamtx")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, err
	}
	config := fmt.Sprintf(mediamtxConfig, dir)
	for i, u := range cams.urls {
		config += fmt.Sprintf("  %s: {source: %q}\n", cameraName(i), u)
	}
	file := filepath.Join(dir, "mediamtx.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return 0, 0, err
	}
	p, err := start(dir, 0, binary, file)
	if err != nil {
		return 0, 0, err
	}
	defer p.end(syscall.SIGTERM)
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
		return 0, 0, err
	}
	return b.takeCPU(ctx, p, func() (float64, error) { return sizeOf(dir) })
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
