package testcam

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// The limits and defaults of a [Config].
const (
	DefaultListen = "127.0.0.1:0"
	DefaultPath   = "main"
	DefaultWidth  = 640
	DefaultHeight = 360
	DefaultRate   = 25

	MaxStreams           = 4 // a device has few encoders
	MinWidth, MaxWidth   = 160, 4096
	MinHeight, MaxHeight = 90, 2304
	MaxRate              = 60
	MaxBitrate           = 50_000 // kbit/s: a key frame's packets must fit the server's queue
	maxGOP               = 60     // seconds
)

// Config describes one camera: a device with a listening address of its own and one or more streams.
// For several cameras open several; the zero value is a whole camera on a free loopback port.
type Config struct {
	// Listen is the TCP address of the RTSP server, [DefaultListen] if empty. Port 0 takes a free one,
	// see [Camera.URL].
	Listen string
	// UDP makes the server offer RTP over UDP as well as inside the RTSP connection, on a free pair of
	// ports of the same host.
	UDP bool
	// Number is in every frame's [Mark]. It also sets colours and tone, so that people tell cameras apart.
	Number uint16
	// Name is written into the picture, in ASCII; letters are shown in upper case. "camera" if empty.
	Name string
	// User and Password, when User is set, are demanded of every client by digest authentication.
	User, Password string
	// Tone adds an audio track to every stream: AAC-LC at 48 kHz, mono, a quiet sine of [ToneHz].
	Tone bool
	// Streams are the camera's feeds; one [DefaultPath] with the defaults if empty. At most [MaxStreams].
	Streams []Stream
	// Clock stamps the frames. The zero value is the machine's clock.
	Clock clock.Clock
	// Logger gets what happens to clients, at debug level; nil discards it.
	Logger *slog.Logger
}

// Stream describes one feed. Zero fields take the defaults.
type Stream struct {
	// Path is the last part of the stream's URL: letters, digits, '-' and '_'; [DefaultPath] if empty.
	Path string
	// Width and Height are in pixels and even. 640x360 and its whole multiples give the smallest frames;
	// at other sizes the pattern is not on macroblocks, and frames are larger even where they show less.
	Width, Height int
	// Rate is in frames a second.
	Rate int
	// GOP is how many frames there are from key frame to key frame; one second's if zero.
	GOP int
	// Bitrate, in kbit/s, is reached by padding; it has no effect below what the picture itself takes,
	// which is about 1200 kbit/s at the defaults.
	Bitrate int
}

// Faults are what may be wrong with a camera. They can be combined and changed at any time, see
// [Camera.SetFaults]; the zero value is a sound camera. A new kind of fault is a new field.
type Faults struct {
	// Freeze sends nothing while connections stay open. Frames go on being numbered, so those of the
	// meantime are missing afterwards; the first one then is a key frame.
	Freeze bool
	// Refuse answers every request with 401, whatever the credentials.
	Refuse bool
	// Unreachable ends each new connection at once. Use it with [Camera.Drop] for a camera that is gone.
	Unreachable bool
	// SkipEvery n leaves out each frame whose number is a multiple of n, unless n is 0.
	SkipEvery uint32
	// CorruptEvery n spoils the coded picture of each frame whose number is a multiple of n, unless n is
	// 0. The mark of such a frame, and of those up to the next key frame, may be unreadable.
	CorruptEvery uint32
	// ClockOffset is added to the capture time that frames and sender reports tell, like a camera whose
	// clock is wrong or, when changed, jumps. RTP timestamps stay continuous.
	ClockOffset time.Duration
}

// Camera is a synthetic camera at work. Its methods may be called concurrently.
type Camera struct {
	cfg    Config
	server *rtspServer
	faults atomic.Pointer[Faults]
	cancel context.CancelFunc
	group  *errgroup.Group
}

// Open starts a camera, which serves until Close. Its error wraps [branchline.ErrInvalid] if the
// configuration is wrong.
func Open(cfg Config) (*Camera, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Camera{cfg: cfg}
	c.faults.Store(&Faults{})
	c.server, err = openServer(cfg, c.Faults)
	if err != nil {
		return nil, fmt.Errorf("open camera %d: %w", cfg.Number, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.group, ctx = errgroup.WithContext(ctx)
	start := cfg.Clock.Now().Truncate(10 * time.Millisecond)
	for _, out := range c.server.outlets {
		c.group.Go(func() error { return newFeed(c, out, start).run(ctx) })
		if cfg.Tone {
			c.group.Go(func() error { return newTone(c, out, start).run(ctx) })
		}
	}
	return c, nil
}

// Close ends the camera and its connections and waits for all of it.
func (c *Camera) Close() error {
	c.cancel()
	err := c.group.Wait()
	c.server.close()
	if err != nil {
		return fmt.Errorf("close camera %d: %w", c.cfg.Number, err)
	}
	return nil
}

// URL returns the address of the first stream, without credentials.
func (c *Camera) URL() string { return c.StreamURL(c.cfg.Streams[0].Path) }

// StreamURL returns the address of the stream with a path, without credentials.
func (c *Camera) StreamURL(path string) string {
	u := url.URL{Scheme: "rtsp", Host: c.Addr().String(), Path: "/" + path}
	return u.String()
}

// Addr returns the address on which the server listens.
func (c *Camera) Addr() net.Addr { return c.server.addr() }

// SetFaults replaces all faults by f, from the next frame and request on.
func (c *Camera) SetFaults(f Faults) { c.faults.Store(&f) }

// Faults returns the faults in force.
func (c *Camera) Faults() Faults { return *c.faults.Load() }

// Drop ends all connections there are, without a word to the clients, which may connect again.
func (c *Camera) Drop() { c.server.drop() }

// withDefaults fills in what is not set and checks all of it.
func (c Config) withDefaults() (Config, error) {
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.Name == "" {
		c.Name = "camera"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Streams) == 0 {
		c.Streams = []Stream{{}}
	}
	if len(c.Streams) > MaxStreams {
		return c, fmt.Errorf("check camera: %d streams, at most %d: %w",
			len(c.Streams), MaxStreams, branchline.ErrInvalid)
	}
	streams := make([]Stream, 0, len(c.Streams))
	for _, s := range c.Streams {
		s = s.withDefaults()
		if err := s.check(); err != nil {
			return c, fmt.Errorf("check stream %q: %w: %w", s.Path, err, branchline.ErrInvalid)
		}
		for _, o := range streams {
			if o.Path == s.Path {
				return c, fmt.Errorf("check stream %q: path is used twice: %w", s.Path, branchline.ErrInvalid)
			}
		}
		streams = append(streams, s)
	}
	c.Streams = streams
	return c, nil
}

func (s Stream) withDefaults() Stream {
	if s.Path == "" {
		s.Path = DefaultPath
	}
	if s.Width == 0 && s.Height == 0 {
		s.Width, s.Height = DefaultWidth, DefaultHeight
	}
	if s.Rate == 0 {
		s.Rate = DefaultRate
	}
	if s.GOP == 0 {
		s.GOP = s.Rate
	}
	return s
}

func (s Stream) check() error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	switch {
	case strings.Trim(s.Path, letters) != "" || len(s.Path) > branchline.MaxLabel:
		return fmt.Errorf("a path is up to %d letters, digits, '-' and '_'", branchline.MaxLabel)
	case s.Width < MinWidth || s.Width > MaxWidth || s.Height < MinHeight || s.Height > MaxHeight:
		return fmt.Errorf("size %dx%d is not within %dx%d and %dx%d",
			s.Width, s.Height, MinWidth, MinHeight, MaxWidth, MaxHeight)
	case s.Width%2 != 0 || s.Height%2 != 0:
		return fmt.Errorf("size %dx%d is odd", s.Width, s.Height)
	case s.Rate < 1 || s.Rate > MaxRate:
		return fmt.Errorf("rate %d is not within 1 and %d frames a second", s.Rate, MaxRate)
	case s.GOP < 1 || s.GOP > maxGOP*s.Rate:
		return fmt.Errorf("%d frames from key frame to key frame are not within 1 and %d", s.GOP, maxGOP*s.Rate)
	case s.Bitrate < 0 || s.Bitrate > MaxBitrate:
		return fmt.Errorf("bit rate %d is not within 0 and %d kbit/s", s.Bitrate, MaxBitrate)
	}
	return nil
}
