package testcam

import (
	"errors"
	"fmt"
)

// ErrUnsupported: the video uses what this package's encoder never writes, or is damaged.
var ErrUnsupported = errors.New("not video of the synthetic camera")

// maxDecodeMBs bounds the picture that a decoder makes room for: 4096x2304.
const maxDecodeMBs = 36864

// Decoder decodes the H.264 that this package writes, and nothing more. The zero value is ready; it
// needs a key frame with its parameter sets first, or those by an earlier call. It is not safe for
// concurrent use.
type Decoder struct {
	pic    *Picture
	coeffs []byte
	ready  bool // a key frame was decoded since the parameter sets
	raw    []byte
}

// Decode takes the NAL units of one access unit, without start codes or lengths, and returns the picture,
// which belongs to the decoder and is valid until its next call. Units that carry no picture may come
// alone; the picture is then nil. Its error wraps [ErrUnsupported], and the next key frame starts afresh.
func (d *Decoder) Decode(nalus [][]byte) (*Picture, error) {
	var pic *Picture
	for _, nalu := range nalus {
		if len(nalu) == 0 {
			continue
		}
		var err error
		switch nalu[0] & 0x1f {
		case nalSPS:
			err = d.sps(nalu[1:])
		case nalIDR, nalSlice:
			err = d.slice(nalu[1:], nalu[0]&0x1f == nalIDR)
			pic = d.pic
		}
		if err != nil {
			d.ready = false
			return nil, err
		}
	}
	return pic, nil
}

// Mark decodes an access unit and reads the mark from its picture. A decoder of a stream must be given
// every access unit from a key frame on.
func (d *Decoder) Mark(nalus [][]byte) (Mark, error) {
	pic, err := d.Decode(nalus)
	if err != nil {
		return Mark{}, err
	}
	if pic == nil {
		return Mark{}, fmt.Errorf("decode access unit without a picture: %w", ErrUnsupported)
	}
	return DecodePattern(pic.Y, pic.Stride, pic.Width, pic.Height)
}

// sps reads as much of a sequence parameter set as the encoder varies.
func (d *Decoder) sps(payload []byte) error {
	d.raw = unescape(d.raw[:0], payload)
	r := bitReader{buf: d.raw}
	profile := r.bits(8)
	r.bits(16)
	id, frameNum, order, refs := r.ue(), r.ue(), r.ue(), r.ue()
	gaps := r.bits(1)
	across, down := r.ue()+1, r.ue()+1
	frames := r.bits(2)
	var left, right, top, bottom uint32
	if r.bits(1) == 1 {
		left, right, top, bottom = r.ue(), r.ue(), r.ue(), r.ue()
	}
	if r.short || profile != 66 || id != 0 || frameNum != frameNumBits-4 || order != 2 || refs != 1 || gaps != 0 ||
		frames != 3 || left != 0 || top != 0 || right >= mbSize/2 || bottom >= mbSize/2 ||
		across > maxDecodeMBs || down > maxDecodeMBs || across*down > maxDecodeMBs {
		return fmt.Errorf("decode sequence parameter set: %w", ErrUnsupported)
	}
	width, height := int(across*mbSize-2*right), int(down*mbSize-2*bottom)
	if d.pic == nil || d.pic.Width != width || d.pic.Height != height {
		d.pic = newPicture(width, height)
		d.coeffs = make([]byte, across*down)
		d.ready = false
	}
	return nil
}

func (d *Decoder) slice(payload []byte, key bool) error {
	if d.pic == nil || !key && !d.ready {
		return fmt.Errorf("decode slice before a key frame: %w", ErrUnsupported)
	}
	d.raw = unescape(d.raw[:0], payload)
	r := bitReader{buf: d.raw}
	want := uint32(sliceP)
	if key {
		want = sliceI
	}
	first, kind, pps := r.ue(), r.ue(), r.ue()
	r.bits(frameNumBits)
	flags := 3
	if key {
		r.ue() // idr_pic_id
		flags = 2
	}
	if r.bits(flags) != 0 || first != 0 || kind != want || pps != 0 || r.se() != 0 || r.ue() != 1 {
		return fmt.Errorf("decode slice header: %w", ErrUnsupported)
	}
	if err := d.macroblocks(&r, key); err != nil {
		return err
	}
	d.ready = true
	return nil
}

func (d *Decoder) macroblocks(r *bitReader, key bool) error {
	across, down := d.pic.mbs()
	clear(d.coeffs)
	for at := 0; at < across*down; at++ {
		base := uint32(0)
		if !key {
			base = mbInP
			at += int(min(r.ue(), uint32(across*down)))
			if at >= across*down && !r.more() {
				break
			}
		}
		if r.short || at >= across*down {
			return fmt.Errorf("decode macroblock %d: %w", at, ErrUnsupported)
		}
		if err := d.macroblock(r, at%across, at/across, r.ue()-base); err != nil {
			return fmt.Errorf("decode macroblock %d: %w", at, err)
		}
	}
	if r.short || r.more() {
		return fmt.Errorf("decode end of slice: %w", ErrUnsupported)
	}
	return nil
}

func (d *Decoder) macroblock(r *bitReader, mx, my int, kind uint32) error {
	luma, cb, cr := d.pic.blocks(mx, my)
	across, _ := d.pic.mbs()
	if kind == mbPCM {
		for _, b := range [...]block{luma, cb, cr} {
			raw := r.bytes(b.size * b.size)
			if raw == nil {
				return ErrUnsupported
			}
			b.load(raw)
		}
		d.coeffs[my*across+mx] = pcmCoefficients
		return nil
	}
	chroma, ok := chromaMode(r.ue())
	if kind < mbPredict || kind >= mbPredict+predModes || !ok || r.se() != 0 {
		return ErrUnsupported
	}
	offset, ok := readDC(r, coefficientContext(d.coeffs, across, mx, my))
	if !ok {
		return ErrUnsupported
	}
	var pred [mbSize * mbSize]byte
	for i, b := range [...]block{luma, cb, cr} {
		mode, add := chroma, 0
		if i == 0 {
			mode, add = int(kind-mbPredict), offset
		}
		if !b.predict(mode, pred[:b.size*b.size]) {
			return ErrUnsupported
		}
		b.store(pred[:b.size*b.size], add)
	}
	return nil
}

// readDC is the inverse of writeDC.
func readDC(r *bitReader, context int) (level int, ok bool) {
	var total, ones int // coefficients; those of size one
	if context < 2 {
		switch r.zeros(3) {
		case 0:
		case 1:
			total, ones = 1, 1
		case 3:
			total = 1
			ok = r.bits(2) == 1
			if !ok {
				return 0, false
			}
		default:
			return 0, false
		}
	} else {
		switch r.bits(6) {
		case 3:
		case 1:
			total, ones = 1, 1
		case 0:
			total = 1
		default:
			return 0, false
		}
	}
	switch {
	case total == 0:
		return 0, !r.short
	case ones == 1:
		level = 1 - 2*int(r.bits(1))
	default:
		level = readLevel(r)
	}
	return level, r.bits(1) == 1 && !r.short
}

func readLevel(r *bitReader) int {
	code := r.zeros(15)
	switch code {
	case 14:
		code += int(r.bits(4))
	case 15:
		code = dcOffsetBase + int(r.bits(12))
	}
	if code%2 == 1 {
		return -(code + 3) / 2
	}
	return (code + 4) / 2
}
