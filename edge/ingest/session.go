package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/pion/rtp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
)

// Timeout is how long a camera may stay silent, or take for an answer.
const Timeout = 10 * time.Second

// Config names a camera's stream.
type Config struct {
	URL    string // rtsp or rtsps, with user and password where needed
	Audio  bool   // record sound too
	Clock  clock.Clock
	Logger *slog.Logger
}

// CheckURL returns an error wrapping [branchline.ErrInvalid] unless url can be a camera's.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

func parseURL(url string) (*base.URL, error) {
	u, err := base.ParseURL(url)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("read camera address: not rtsp://host/path or rtsps://host/path: %w",
			branchline.ErrInvalid)
	}
	return u, nil
}

// Session is an open connection to a camera. The caller closes it.
type Session struct {
	cfg    Config
	client *gortsplib.Client
	tracks []*track
	unused []string
	lost   atomic.Uint64
	failed chan error
}

// Open connects, and prepares the camera's first video and first sound that can be recorded. It gives
// up when ctx ends.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	tcp := gortsplib.ProtocolTCP
	s := &Session{cfg: cfg, failed: make(chan error, 1), client: &gortsplib.Client{
		Scheme: u.Scheme, Host: u.Host, DialContext: dial, Protocol: &tcp, ReadTimeout: Timeout, WriteTimeout: Timeout,
		UserAgent: "branchline", DisableRTCPSenderReports: true,
	}}
	s.client.OnDecodeError = func(error) { s.lost.Add(1) }
	if err := s.client.Start(); err != nil {
		return nil, fmt.Errorf("connect to camera: %w", err)
	}
	unwatch := context.AfterFunc(ctx, s.client.Close)
	err = s.setup(u)
	if !unwatch() {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.client.Close()
		return nil, fmt.Errorf("connect to camera: %w", err)
	}
	return s, nil
}

func (s *Session) setup(u *base.URL) error {
	desc, _, err := s.client.Describe(u)
	if err != nil {
		return err
	}
	for _, m := range desc.Medias {
		if err := s.choose(desc, m); err != nil {
			return err
		}
	}
	if len(s.tracks) == 0 {
		return fmt.Errorf("%w among %q", ErrNoTrack, s.unused)
	}
	return nil
}

// choose sets a medium up if it can be recorded and is the first of its kind.
func (s *Session) choose(desc *description.Session, m *description.Media) error {
	if m.IsBackChannel {
		return nil
	}
	for _, f := range m.Formats {
		t, err := newTrack(m, f)
		switch {
		case err != nil:
			return err
		case t == nil:
			s.unused = append(s.unused, string(m.Type)+" "+f.RTPMap())
			continue
		case !t.media.Video() && !s.cfg.Audio || s.has(t.media.Video()):
			continue
		}
		if _, err := s.client.Setup(desc.BaseURL, m, 0, 0); err != nil {
			return err
		}
		s.tracks = append(s.tracks, t)
		t.number = len(s.tracks)
		return nil
	}
	return nil
}

func (s *Session) has(video bool) bool {
	for _, t := range s.tracks {
		if t.media.Video() == video {
			return true
		}
	}
	return false
}

// Tracks describes what Run's units belong to.
func (s *Session) Tracks() []media.Track {
	var tracks []media.Track
	for _, t := range s.tracks {
		tracks = append(tracks, t.media)
	}
	return tracks
}

// Unused names the formats that the camera offers and that cannot be recorded.
func (s *Session) Unused() []string { return s.unused }

// Lost returns how many packets, or units that could not be put together, were lost so far.
func (s *Session) Lost() uint64 { return s.lost.Load() }

// Run plays until the camera fails, write returns an error, or ctx ends, and returns that error or
// ctx's cause. write is called from one goroutine at a time and never after Run has returned; while it
// blocks, the camera waits.
func (s *Session) Run(ctx context.Context, write func(media.Unit) error) error {
	for _, t := range s.tracks {
		s.client.OnPacketRTP(t.medium, t.format, func(p *rtp.Packet) {
			if err := s.packet(t, p, write); err != nil {
				select {
				case s.failed <- err:
				default:
				}
			}
		})
	}
	if _, err := s.client.Play(nil); err != nil {
		return fmt.Errorf("play camera: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.client.Wait() }()
	var err error
	select {
	case err = <-ended:
		return fmt.Errorf("play camera: %w", err)
	case err = <-s.failed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.client.Close()
	s.cfg.Logger.Debug("session closed", "error", <-ended)
	return err
}

// Close ends the session and waits for its goroutines.
func (s *Session) Close() { s.client.Close() }

// packet is called by the library, for all tracks from one goroutine.
func (s *Session) packet(t *track, p *rtp.Packet, write func(media.Unit) error) error {
	if len(s.failed) > 0 {
		return nil
	}
	pts, ok := s.client.PacketPTS(t.medium, p)
	if !ok {
		return nil
	}
	arrived := s.cfg.Clock.Now()
	ntp, _ := s.client.PacketNTP(t.medium, p)
	units, lost := t.decode(p, stamp{pts: t.duration(pts), ntp: ntp})
	s.lost.Add(uint64(lost))
	for _, u := range units {
		u.Track, u.Arrived = t.number, arrived
		if err := write(u); err != nil {
			return err
		}
	}
	return nil
}
