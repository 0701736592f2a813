package testcam

import (
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
)

// Film makes the access units of a stream without a server or a clock, for tests that need video and no
// camera. It is not safe for concurrent use.
type Film struct {
	stream   Stream
	camera   uint16
	enc      *encoder
	scene    *scene
	sps, pps []byte
	debt     int // bytes made beyond the bit rate
}

// NewFilm returns a film of a stream, whose zero fields take the defaults, by a camera with a number and
// a name. Its error wraps [branchline.ErrInvalid].
func NewFilm(stream Stream, camera uint16, name string) (*Film, error) {
	stream = stream.withDefaults()
	if err := stream.check(); err != nil {
		return nil, fmt.Errorf("check stream %q: %w: %w", stream.Path, err, branchline.ErrInvalid)
	}
	return newFilm(stream, camera, name), nil
}

func newFilm(stream Stream, camera uint16, name string) *Film {
	enc := newEncoder(newPicture(stream.Width, stream.Height), stream.Rate)
	return &Film{stream: stream, camera: camera, enc: enc, scene: newScene(enc, camera, name),
		sps: enc.sps(), pps: enc.pps()}
}

// SPS and PPS are the parameter sets, which every key frame also carries.
func (f *Film) SPS() []byte { return f.sps }

// PPS is the picture parameter set.
func (f *Film) PPS() []byte { return f.pps }

// AccessUnit draws and codes the frame with a number and a capture time. The first one must be a key frame.
// The NAL units are valid until the next call; the coded picture is the last of them.
func (f *Film) AccessUnit(captured time.Time, frame uint32, key bool) [][]byte {
	f.scene.draw(Mark{Time: captured, Camera: f.camera, Frame: frame})
	slice := f.enc.encode(key)
	au := make([][]byte, 0, 4)
	size := len(slice)
	if key {
		au = append(au, f.sps, f.pps)
		size += len(f.sps) + len(f.pps)
	}
	if budget := f.stream.Bitrate * 1000 / 8 / f.stream.Rate; budget > 0 {
		f.debt += size - budget
		if f.debt < -minPadding {
			pad := padding(-f.debt)
			f.debt += len(pad)
			au = append(au, pad)
		}
		f.debt = min(f.debt, budget*f.stream.Rate)
	}
	return append(au, slice)
}

// minPadding is the least number of bytes that is worth a padding unit.
const minPadding = 32
