package testcam

import (
	"bytes"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openCamera(t *testing.T, cfg Config) *Camera {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// seen is a video frame as a client got it.
type seen struct {
	Mark
	ntp   time.Time // by the sender reports
	known bool      // there was a sender report
	rtp   uint32
	err   error
}

// timed reports whether the sender reports agree with the picture, to a tick. Over UDP the first one may
// come after the frame.
func (f seen) timed(protocol gortsplib.Protocol) bool {
	diff := f.ntp.Sub(f.Time).Abs()
	return f.known && diff <= 12*time.Microsecond || !f.known && protocol == gortsplib.ProtocolUDP
}

// player is an RTSP client whose frames and audio frames arrive on channels.
type player struct {
	client gortsplib.Client
	video  chan seen
	audio  chan []byte
	ended  chan error
}

func play(address string, protocol gortsplib.Protocol) (*player, error) {
	p := &player{video: make(chan seen, 1000), audio: make(chan []byte, 1000), ended: make(chan error, 1)}
	u, err := base.ParseURL(address)
	if err != nil {
		return nil, err
	}
	p.client = gortsplib.Client{Scheme: u.Scheme, Host: u.Host, Protocol: &protocol,
		OnPacketsLost: func(uint64) {}, OnDecodeError: func(error) {}}
	if err := p.client.Start(); err != nil {
		return nil, err
	}
	if err := p.start(u); err != nil {
		p.client.Close()
		return nil, err
	}
	go func() { p.ended <- p.client.Wait() }()
	return p, nil
}

func (p *player) start(u *base.URL) error {
	desc, _, err := p.client.Describe(u)
	if err != nil {
		return err
	}
	if err := p.client.SetupAll(desc.BaseURL, desc.Medias); err != nil {
		return err
	}
	if err := p.onVideo(desc); err != nil {
		return err
	}
	var aac *format.MPEG4Audio
	if media := desc.FindFormat(&aac); media != nil {
		dec, err := aac.CreateDecoder()
		if err != nil {
			return err
		}
		p.client.OnPacketRTP(media, aac, func(pkt *rtp.Packet) {
			if frames, err := dec.Decode(pkt); err == nil {
				for _, f := range frames {
					p.audio <- f
				}
			}
		})
	}
	_, err = p.client.Play(nil)
	return err
}

func (p *player) onVideo(desc *description.Session) error {
	var h264 *format.H264
	media := desc.FindFormat(&h264)
	if media == nil {
		return errors.New("no H.264 in the description")
	}
	dec, err := h264.CreateDecoder()
	if err != nil {
		return err
	}
	var pictures Decoder
	waiting := true // for the first key frame
	p.client.OnPacketRTP(media, h264, func(pkt *rtp.Packet) {
		au, err := dec.Decode(pkt)
		if err != nil {
			return
		}
		waiting = waiting && au[0][0]&0x1f != nalSPS
		if waiting {
			return
		}
		f := seen{rtp: pkt.Timestamp}
		f.Mark, f.err = pictures.Mark(au)
		f.ntp, f.known = p.client.PacketNTP(media, pkt)
		p.video <- f
	})
	return nil
}

func (p *player) next(t *testing.T) seen {
	t.Helper()
	select {
	case f := <-p.video:
		return f
	case err := <-p.ended:
		t.Fatalf("connection ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no frame for 10 s")
	}
	return seen{}
}

// until takes frames until one is as wanted, of the next few.
func until(t *testing.T, p *player, what string, wanted func(seen) bool) {
	t.Helper()
	for range 100 {
		if wanted(p.next(t)) {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func mustPlay(t *testing.T, address string, protocol gortsplib.Protocol) *player {
	t.Helper()
	p, err := play(address, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	return p
}

func TestPlay(t *testing.T) {
	tests := []struct {
		name     string
		cfg      Config
		protocol gortsplib.Protocol
		frames   int
	}{
		{"defaults over TCP", Config{}, gortsplib.ProtocolTCP, 40},
		{"audio over TCP", Config{Number: 7, Tone: true}, gortsplib.ProtocolTCP, 10},
		{"audio over UDP", Config{Number: 7, Tone: true, UDP: true}, gortsplib.ProtocolUDP, 10},
		{"odd rate and cut-off rows", Config{Number: 65535, Streams: []Stream{
			{Path: "sub", Width: 322, Height: 182, Rate: 30, GOP: 5}}}, gortsplib.ProtocolTCP, 20},
		{"padded", Config{Streams: []Stream{{Rate: 50, GOP: 10, Bitrate: 8000}}}, gortsplib.ProtocolTCP, 25},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := openCamera(t, test.cfg)
			p := mustPlay(t, c.URL(), test.protocol)
			rate := uint32(c.cfg.Streams[0].Rate)
			first := p.next(t)
			last := first
			for n := range test.frames {
				if n > 0 {
					last = p.next(t)
				}
				age := time.Since(last.Time)
				if last.err != nil || last.Camera != test.cfg.Number || last.Frame != first.Frame+uint32(n) {
					t.Fatalf("frame %d is %+v", n, last)
				}
				if !last.timed(test.protocol) {
					t.Fatalf("frame %d: sender reports say %v, the picture %v", n, last.ntp, last.Time)
				}
				if ticks := last.rtp - first.rtp; ticks != uint32(n)*videoClock/rate {
					t.Fatalf("frame %d: %d ticks after the first", n, ticks)
				}
				if age < 0 || age > 5*time.Second {
					t.Fatalf("frame %d is %v old", n, age)
				}
			}
			if test.cfg.Tone {
				if got, want := <-p.audio, toneFrame(test.cfg.Number); !bytes.Equal(got, want) {
					t.Fatalf("audio frame is %x, want %x", got, want)
				}
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	c := openCamera(t, Config{User: "admin", Password: "secret"})
	tests := []struct {
		name string
		user *url.Userinfo
		ok   bool
	}{
		{"right", url.UserPassword("admin", "secret"), true},
		{"wrong password", url.UserPassword("admin", "Secret"), false},
		{"wrong user", url.UserPassword("root", "secret"), false},
		{"none", nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u, err := url.Parse(c.URL())
			if err != nil {
				t.Fatal(err)
			}
			u.User = test.user
			p, err := play(u.String(), gortsplib.ProtocolTCP)
			if test.ok {
				if err != nil {
					t.Fatal(err)
				}
				p.next(t)
				p.client.Close()
				return
			}
			var status liberrors.ErrClientBadStatusCode
			if !errors.As(err, &status) || status.Code != base.StatusUnauthorized {
				t.Fatalf("got %v, want status 401", err)
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	asked := make(chan struct{}) // the camera reads the clock before each frame, frozen or not
	c := openCamera(t, Config{Streams: []Stream{{Rate: 50, GOP: 1000}}, Clock: clock.New(func() time.Time {
		select {
		case asked <- struct{}{}:
		default:
		}
		return time.Now()
	})})
	// The client comes after the first key frame of a very long group, so that a frame at all shows that
	// the end of a freeze gives a key frame.
	<-asked
	<-asked
	p := mustPlay(t, c.URL(), gortsplib.ProtocolTCP)
	c.SetFaults(Faults{Freeze: true})
	for range 10 {
		<-asked
	}
	if n := len(p.video); n > 0 {
		t.Errorf("%d frames before a key frame or while frozen", n)
	}
	c.SetFaults(Faults{})
	first := p.next(t)
	second := p.next(t)
	if first.err != nil || second.Frame != first.Frame+1 || first.Frame < 9 {
		t.Fatalf("after a freeze: %+v, %+v", first, second)
	}
}

func TestFaults(t *testing.T) {
	c := openCamera(t, Config{Streams: []Stream{{Rate: 50, GOP: 10}}})
	p := mustPlay(t, c.URL(), gortsplib.ProtocolTCP)
	p.next(t)

	c.SetFaults(Faults{SkipEvery: 4})
	var got []seen
	for last := p.next(t); len(got) < 12; {
		f := p.next(t)
		if len(got) > 0 || f.Frame == last.Frame+2 { // from the first gap on
			got = append(got, f)
		}
		last = f
	}
	for i, f := range got[1:] {
		step, expected := f.Frame-got[i].Frame, uint32(1)
		if got[i].Frame%4 == 3 {
			expected = 2
		}
		if f.err != nil || step != expected {
			t.Fatalf("frame %d follows %d: %v", f.Frame, got[i].Frame, f.err)
		}
	}

	c.SetFaults(Faults{CorruptEvery: 3})
	until(t, p, "a damaged frame", func(f seen) bool { return f.err != nil })

	c.SetFaults(Faults{ClockOffset: time.Hour})
	until(t, p, "a frame of the wrong clock", func(f seen) bool {
		return f.err == nil && f.Time.After(time.Now().Add(50*time.Minute))
	})
}

func TestDropAndRefuse(t *testing.T) {
	c := openCamera(t, Config{UDP: true})
	for _, protocol := range []gortsplib.Protocol{gortsplib.ProtocolTCP, gortsplib.ProtocolUDP} {
		p := mustPlay(t, c.URL(), protocol)
		p.next(t)
		c.Drop()
		if err := <-p.ended; err == nil {
			t.Error("a dropped connection ended without an error")
		}
	}
	c.SetFaults(Faults{Refuse: true})
	_, err := play(c.URL(), gortsplib.ProtocolTCP)
	var status liberrors.ErrClientBadStatusCode
	if !errors.As(err, &status) || status.Code != base.StatusUnauthorized {
		t.Errorf("refused: %v, want status 401", err)
	}
	c.SetFaults(Faults{Unreachable: true})
	if _, err = play(c.URL(), gortsplib.ProtocolTCP); err == nil || errors.As(err, &status) {
		t.Errorf("unreachable: %v, want a broken connection", err)
	}
	c.SetFaults(Faults{})
	mustPlay(t, c.URL(), gortsplib.ProtocolTCP).next(t)
}

func TestOpenRejects(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
	}{
		{"odd width", Config{Streams: []Stream{{Width: 321, Height: 180}}}},
		{"height missing", Config{Streams: []Stream{{Width: 320}}}},
		{"too large", Config{Streams: []Stream{{Width: 8192, Height: 4096}}}},
		{"rate", Config{Streams: []Stream{{Rate: 61}}}},
		{"negative group", Config{Streams: []Stream{{GOP: -1}}}},
		{"bit rate", Config{Streams: []Stream{{Bitrate: MaxBitrate + 1}}}},
		{"path", Config{Streams: []Stream{{Path: "a/b"}}}},
		{"same path", Config{Streams: []Stream{{}, {}}}},
		{"too many", Config{Streams: make([]Stream, MaxStreams+1)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Open(test.cfg); !errors.Is(err, branchline.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
	if _, err := Open(Config{Listen: "127.0.0.1:99999"}); err == nil {
		t.Error("an impossible address was accepted")
	}
}
