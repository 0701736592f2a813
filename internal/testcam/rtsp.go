package testcam

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/auth"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg4audio"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/bluenviron/gortsplib/v5/pkg/ntp"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

const (
	// queueSize is how many packets wait for one client: a key frame of the largest picture in raw
	// samples, 9700 packets, and some more; a power of two.
	queueSize = 16384

	// udpAttempts is how many pairs of free ports are tried before giving up.
	udpAttempts = 16

	videoClock = 90000
)

// rtspServer serves the streams of one camera. It is gortsplib's handler as well.
type rtspServer struct {
	cfg     Config
	faults  func() Faults
	server  *gortsplib.Server
	outlets []*outlet

	mu       sync.Mutex
	conns    map[*gortsplib.ServerConn]struct{}
	sessions map[*gortsplib.ServerSession]struct{}
}

func openServer(cfg Config, faults func() Faults) (*rtspServer, error) {
	s := &rtspServer{cfg: cfg, faults: faults,
		conns: map[*gortsplib.ServerConn]struct{}{}, sessions: map[*gortsplib.ServerSession]struct{}{}}
	if err := s.start(); err != nil {
		return nil, err
	}
	for _, stream := range cfg.Streams {
		out, err := newOutlet(s.server, stream, cfg.Tone)
		if err != nil {
			s.server.Close()
			return nil, fmt.Errorf("offer stream %s: %w", stream.Path, err)
		}
		s.mu.Lock()
		s.outlets = append(s.outlets, out)
		s.mu.Unlock()
	}
	return s, nil
}

// start starts the server, with UDP on whichever pair of ports is free.
func (s *rtspServer) start() error {
	for attempt := 0; ; attempt++ {
		s.server = &gortsplib.Server{
			Handler:        s,
			RTSPAddress:    s.cfg.Listen,
			AuthMethods:    []auth.VerifyMethod{auth.VerifyMethodDigestMD5},
			WriteQueueSize: queueSize,
			// The library reports a time that it extrapolates; ours is exact, see outlet.send.
			DisableRTCPSenderReports: true,
			Listen:                   s.listen,
		}
		if s.cfg.UDP {
			host, port, err := freePortPair(s.cfg.Listen)
			if err != nil {
				return err
			}
			s.server.UDPRTPAddress = net.JoinHostPort(host, strconv.Itoa(port))
			s.server.UDPRTCPAddress = net.JoinHostPort(host, strconv.Itoa(port+1))
		}
		err := s.server.Start()
		if err == nil {
			return nil
		}
		if !s.cfg.UDP || attempt == udpAttempts {
			return fmt.Errorf("listen on %s: %w", s.cfg.Listen, err)
		}
	}
}

// freePortPair returns an even UDP port that was free a moment ago.
func freePortPair(listen string) (host string, port int, err error) {
	host, _, err = net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("read address %s: %w", listen, err)
	}
	conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", 0, fmt.Errorf("find a UDP port: %w", err)
	}
	defer conn.Close()
	return host, conn.LocalAddr().(*net.UDPAddr).Port &^ 1, nil
}

// listen wraps the server's listener by the fault of an unreachable camera.
func (s *rtspServer) listen(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	return gate{ln, s.faults}, err
}

// gate ends connections at once while the camera is to be unreachable.
type gate struct {
	net.Listener
	faults func() Faults
}

// Accept waits for a connection that may stay.
func (g gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil || !g.faults().Unreachable {
			return conn, err //nolint:wrapcheck // a wrapper must keep the listener's errors
		}
		conn.Close()
	}
}

func (s *rtspServer) addr() net.Addr { return s.server.NetListener().Addr() }

func (s *rtspServer) close() {
	for _, out := range s.outlets {
		out.rtsp.Close()
	}
	s.server.Close()
}

// drop ends sessions before their connections, so that those over UDP end as well.
func (s *rtspServer) drop() {
	s.mu.Lock()
	sessions, conns := slices.Collect(maps.Keys(s.sessions)), slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, session := range sessions {
		session.Close()
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// OnConnOpen is called by the library for each connection.
func (s *rtspServer) OnConnOpen(ctx *gortsplib.ServerHandlerOnConnOpenCtx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[ctx.Conn] = struct{}{}
}

// OnConnClose is called by the library when a connection has ended.
func (s *rtspServer) OnConnClose(ctx *gortsplib.ServerHandlerOnConnCloseCtx) {
	s.cfg.Logger.Debug("camera: connection ended", "number", s.cfg.Number,
		"client", ctx.Conn.NetConn().RemoteAddr().String(), slog.Any("error", ctx.Error))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, ctx.Conn)
}

// OnSessionOpen is called by the library for each session.
func (s *rtspServer) OnSessionOpen(ctx *gortsplib.ServerHandlerOnSessionOpenCtx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[ctx.Session] = struct{}{}
}

// OnSessionClose is called by the library when a session has ended.
func (s *rtspServer) OnSessionClose(ctx *gortsplib.ServerHandlerOnSessionCloseCtx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ctx.Session)
}

// OnDescribe is called by the library when a client asks what a stream holds.
func (s *rtspServer) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (
	*base.Response, *gortsplib.ServerStream, error,
) {
	return s.answer(ctx.Conn, ctx.Request, ctx.Path)
}

// OnSetup is called by the library when a client wants a track.
func (s *rtspServer) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	return s.answer(ctx.Conn, ctx.Request, ctx.Path)
}

// OnPlay is called by the library when a client wants the tracks to start.
func (s *rtspServer) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (s *rtspServer) answer(conn *gortsplib.ServerConn, req *base.Request, path string) (
	*base.Response, *gortsplib.ServerStream, error,
) {
	refuse := s.faults().Refuse
	if refuse || s.cfg.User != "" && !conn.VerifyCredentials(req, s.cfg.User, s.cfg.Password) {
		if refuse {
			conn.VerifyCredentials(req, "nobody", "") // so that the library can state its challenge
		}
		return &base.Response{StatusCode: base.StatusUnauthorized}, nil, liberrors.ErrServerAuth{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, out := range s.outlets {
		if out.stream.Path == strings.Trim(path, "/") {
			return &base.Response{StatusCode: base.StatusOK}, out.rtsp, nil
		}
	}
	return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
}

// outlet is a stream as the server offers it. Video and audio may be sent concurrently.
type outlet struct {
	stream Stream
	rtsp   *gortsplib.ServerStream
	video  *track
	audio  *track // nil without tone
	h264   *rtph264.Encoder
	mpeg4  *rtpmpeg4audio.Encoder
}

// track is one medium of an outlet.
type track struct {
	media *description.Media
	clock int64 // ticks a second of RTP timestamps
	ssrc  uint32
	// What was sent, for the reports; only the track's sender touches them.
	packets, octets uint32
}

func newOutlet(server *gortsplib.Server, stream Stream, tone bool) (*outlet, error) {
	enc := newEncoder(newPicture(stream.Width, stream.Height), stream.Rate)
	h264 := &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: enc.sps(), PPS: enc.pps()}
	out := &outlet{stream: stream}
	out.video = &track{clock: videoClock,
		media: &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{h264}}}
	medias := []*description.Media{out.video.media}
	var err error
	if out.h264, err = h264.CreateEncoder(); err != nil {
		return nil, fmt.Errorf("make packetizer of video: %w", err)
	}
	if tone {
		aac := &format.MPEG4Audio{PayloadTyp: 97, SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3,
			Config: &mpeg4audio.AudioSpecificConfig{
				Type: mpeg4audio.ObjectTypeAACLC, SampleRate: aacRate, ChannelConfig: 1}}
		if out.mpeg4, err = aac.CreateEncoder(); err != nil {
			return nil, fmt.Errorf("make packetizer of audio: %w", err)
		}
		out.audio = &track{clock: aacRate,
			media: &description.Media{Type: description.MediaTypeAudio, Formats: []format.Format{aac}}}
		medias = append(medias, out.audio.media)
	}
	out.rtsp = &gortsplib.ServerStream{Server: server, Desc: &description.Session{Medias: medias}}
	if err := out.rtsp.Initialize(); err != nil {
		return nil, fmt.Errorf("make stream: %w", err)
	}
	for media, stats := range out.rtsp.Stats().Medias {
		for _, f := range stats.Formats {
			if media == out.video.media {
				out.video.ssrc = f.LocalSSRC
			} else {
				out.audio.ssrc = f.LocalSSRC
			}
		}
	}
	return out, nil
}

// ticks returns the RTP timestamp of an instant: whole ticks since 1970, wrapped.
func (t *track) ticks(at time.Time) uint32 {
	seconds, rest := at.Unix(), int64(at.Nanosecond())
	return uint32(seconds*t.clock + (rest*t.clock+int64(time.Second)/2)/int64(time.Second))
}

// moment is when something was captured, what the camera's clock said then, and whether to report it.
type moment struct {
	captured, shown time.Time
	report          bool
}

func (o *outlet) sendVideo(au [][]byte, at moment) error {
	packets, err := o.h264.Encode(au)
	if err != nil {
		return fmt.Errorf("packetize: %w", err)
	}
	return o.send(o.video, packets, at)
}

func (o *outlet) sendAudio(frame []byte, at moment) error {
	packets, err := o.mpeg4.Encode([][]byte{frame})
	if err != nil {
		return fmt.Errorf("packetize: %w", err)
	}
	return o.send(o.audio, packets, at)
}

// send writes packets and, if asked for, a sender report behind the first one: clients do not know whose
// report it is before they have seen a packet, and they need it before the frame is complete.
func (o *outlet) send(t *track, packets []*rtp.Packet, at moment) error {
	ticks := t.ticks(at.captured)
	for i, p := range packets {
		p.Timestamp += ticks
		t.packets++
		t.octets += uint32(len(p.Payload))
		if err := o.rtsp.WritePacketRTPWithNTP(t.media, p, at.shown); err != nil {
			return fmt.Errorf("write packet: %w", err)
		}
		if i > 0 || !at.report {
			continue
		}
		err := o.rtsp.WritePacketRTCP(t.media, &rtcp.SenderReport{
			SSRC: t.ssrc, NTPTime: ntp.Encode(at.shown), RTPTime: ticks,
			PacketCount: t.packets, OctetCount: t.octets,
		})
		if err != nil {
			return fmt.Errorf("write sender report: %w", err)
		}
	}
	return nil
}
