package segstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/branchline-video/branchline"
)

// Reading a segment without its footer: box by box, a fragment at a time.

// maxBoxes bounds the boxes of a fragment, of which there are four, so that no file is read for long.
const maxBoxes = 64

// errTorn: what follows in the file is no whole valid fragment.
var errTorn = errors.New("no whole fragment")

// tracks tells what the init part says of the lead track, by whose samples a fragment's times go.
type tracks struct {
	lead      uint32 // track identifier
	timescale uint32
	video     bool
}

// box is one MP4 box: its type and what follows the header.
type box struct {
	kind string
	body []byte
}

// boxes yields the boxes that b consists of, and stops at the first malformed one.
func boxes(b []byte) iter.Seq[box] {
	return func(yield func(box) bool) {
		for len(b) >= 8 {
			n := int64(binary.BigEndian.Uint32(b))
			if n < 8 || n > int64(len(b)) || !yield(box{string(b[4:8]), b[8:n]}) {
				return
			}
			b = b[n:]
		}
	}
}

// child returns the body of the first box on the path, nil if there is none.
func child(b []byte, path ...string) []byte {
	for _, kind := range path {
		var found []byte
		for x := range boxes(b) {
			if x.kind == kind {
				found = x.body
				break
			}
		}
		b = found
	}
	return b
}

// readTracks finds the lead track of an init part: the first of video, else the first.
func readTracks(init []byte) (tracks, error) {
	var lead tracks
	for x := range boxes(child(init, "moov")) {
		if x.kind != "trak" {
			continue
		}
		t, err := readTrack(x.body)
		if err != nil {
			return tracks{}, err
		}
		if lead.timescale == 0 || t.video && !lead.video {
			lead = t
		}
	}
	if lead.timescale == 0 {
		return tracks{}, fmt.Errorf("read init part: no track: %w", branchline.ErrInvalid)
	}
	return lead, nil
}

func readTrack(trak []byte) (t tracks, err error) {
	tkhd, mdhd, hdlr := child(trak, "tkhd"), child(trak, "mdia", "mdhd"), child(trak, "mdia", "hdlr")
	if len(tkhd) < 24 || len(mdhd) < 24 || len(hdlr) < 12 {
		return t, fmt.Errorf("read init part: incomplete track: %w", branchline.ErrInvalid)
	}
	at := 12 // of both numbers, after version and two dates of four bytes
	if tkhd[0] == 1 {
		at = 20
	}
	t.lead = binary.BigEndian.Uint32(tkhd[at:])
	if at = 12; mdhd[0] == 1 {
		at = 20
	}
	t.timescale = binary.BigEndian.Uint32(mdhd[at:])
	t.video = string(hdlr[8:12]) == "vide"
	if t.timescale == 0 {
		return t, fmt.Errorf("read init part: timescale of zero: %w", branchline.ErrInvalid)
	}
	return t, nil
}

// initSize returns how long the file's ftyp and moov are together.
func initSize(r io.ReaderAt, size int64) (int64, error) {
	var at int64
	for {
		kind, n, err := boxAt(r, at, min(size, MaxInit))
		if err != nil {
			return 0, fmt.Errorf("read init part: %w: %w", branchline.ErrInvalid, err)
		}
		at += n
		if kind == "moov" {
			return at, nil
		}
	}
}

// boxAt returns the type and length of the box at an offset, which must end before limit.
func boxAt(r io.ReaderAt, at, limit int64) (string, int64, error) {
	var head [8]byte
	if at+8 > limit {
		return "", 0, errTorn
	}
	if _, err := r.ReadAt(head[:], at); err != nil {
		return "", 0, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n < 8 || at+n > limit {
		return "", 0, errTorn
	}
	return string(head[4:]), n, nil
}

// fragmentLength returns how long the boxes at an offset are up to the one that may be the checksum box.
// What is not a whole fragment is errTorn; other errors are r's.
func fragmentLength(r io.ReaderAt, at, size int64) (int64, error) {
	end, limit := at, min(size, at+MaxFragment)
	for kind, left := "", maxBoxes; kind != "uuid"; left-- {
		var n int64
		var err error
		if left == 0 {
			return 0, errTorn
		}
		if kind, n, err = boxAt(r, end, limit); err != nil {
			return 0, err
		}
		end += n
		if kind == "uuid" && (n != ChecksumSize || end == at+n) {
			return 0, errTorn
		}
	}
	return end - at, nil
}

// fragmentAt reads the fragment at an offset and checks its checksum box. What is not a whole valid
// fragment is errTorn; other errors are r's.
func fragmentAt(r io.ReaderAt, t tracks, at, size int64) (branchline.Fragment, error) {
	n, err := fragmentLength(r, at, size)
	if err != nil {
		return branchline.Fragment{}, err
	}
	end := at + n
	data := make([]byte, n)
	if _, err := r.ReadAt(data, at); err != nil {
		return branchline.Fragment{}, err
	}
	if !checksumHolds(data) {
		return branchline.Fragment{}, errTorn
	}
	f := branchline.Fragment{Offset: at, Length: end - at, Hash: sha256.Sum256(data)}
	if err := t.time(&f, data); err != nil {
		return branchline.Fragment{}, err
	}
	return f, nil
}

// fragments yields the whole valid fragments of a file from an offset on.
func fragments(r io.ReaderAt, t tracks, at, size int64) iter.Seq2[branchline.Fragment, error] {
	return func(yield func(branchline.Fragment, error) bool) {
		for {
			f, err := fragmentAt(r, t, at, size)
			if errors.Is(err, errTorn) {
				return
			}
			if !yield(f, err) || err != nil {
				return
			}
			at = f.End()
		}
	}
}

// time sets the fragment's start, duration and key from the lead track's samples, or where it has none
// from those of the first track present.
func (t tracks) time(f *branchline.Fragment, data []byte) error {
	var lead []byte
	for x := range boxes(child(data, "moof")) {
		if x.kind != "traf" {
			continue
		}
		tfhd := child(x.body, "tfhd")
		if len(tfhd) >= 8 && (lead == nil || binary.BigEndian.Uint32(tfhd[4:]) == t.lead) {
			lead = x.body
		}
	}
	tfhd, tfdt := child(lead, "tfhd"), child(lead, "tfdt")
	if len(tfhd) < 8 || len(tfdt) < 8 || tfdt[0] == 1 && len(tfdt) < 12 {
		return errTorn
	}
	decode := uint64(binary.BigEndian.Uint32(tfdt[4:]))
	if tfdt[0] == 1 {
		decode = binary.BigEndian.Uint64(tfdt[4:])
	}
	samples, err := readSamples(tfhd, child(lead, "trun"))
	if err != nil {
		return err
	}
	f.Start = t.instant(decode)
	f.Duration = t.instant(decode + samples.duration).Sub(f.Start)
	f.Key = samples.sync && (!t.video || binary.BigEndian.Uint32(tfhd[4:]) == t.lead)
	return nil
}

// instant returns the first nanosecond that is not before a decode time, as whoever muxed did.
func (t tracks) instant(units uint64) time.Time {
	scale := uint64(t.timescale)
	return time.Unix(int64(units/scale), int64((units%scale*uint64(time.Second)+scale-1)/scale)).UTC()
}

type samples struct {
	duration uint64 // in units of the track
	sync     bool   // the first sample is a random access point
}

// Flags of tfhd and trun (ISO/IEC 14496-12, 8.8.7 and 8.8.8).
const (
	tfhdBaseOffset   = 0x01
	tfhdDescription  = 0x02
	tfhdDuration     = 0x08
	tfhdSize         = 0x10
	tfhdFlags        = 0x20
	trunOffset       = 0x0001
	trunFirstFlags   = 0x0004
	trunDuration     = 0x0100
	trunSize         = 0x0200
	trunFlags        = 0x0400
	trunComposition  = 0x0800
	sampleIsNonSync  = 0x10000
	fullBoxFlagsMask = 0xffffff
)

// readSamples adds up a track fragment's sample durations.
func readSamples(tfhd, trun []byte) (samples, error) {
	head := fields{b: tfhd}
	has := head.u32() & fullBoxFlagsMask
	head.u32()
	head.skip(has, tfhdBaseOffset, tfhdBaseOffset, tfhdDescription)
	duration := head.when(has, tfhdDuration)
	head.when(has, tfhdSize)
	flags := head.when(has, tfhdFlags)

	run := fields{b: trun}
	has = run.u32() & fullBoxFlagsMask
	count := run.u32()
	run.when(has, trunOffset)
	first := flags
	if has&trunFirstFlags != 0 {
		first = run.u32()
	}
	var s samples
	for i := uint32(0); i < count && !run.short; i++ {
		d := duration
		if has&trunDuration != 0 {
			d = run.u32()
		}
		s.duration += uint64(d)
		run.when(has, trunSize)
		if own := run.when(has, trunFlags); i == 0 && has&trunFlags != 0 {
			first = own
		}
		run.when(has, trunComposition)
		if has&(trunDuration|trunSize|trunFlags|trunComposition) == 0 {
			s.duration += uint64(d) * uint64(count-1)
			break
		}
	}
	s.sync = first&sampleIsNonSync == 0
	if head.short || run.short {
		return s, errTorn
	}
	return s, nil
}

// fields reads numbers of four bytes one after another.
type fields struct {
	b     []byte
	short bool // there were not enough
}

func (f *fields) u32() uint32 {
	if len(f.b) < 4 {
		f.short = true
		return 0
	}
	v := binary.BigEndian.Uint32(f.b)
	f.b = f.b[4:]
	return v
}

// when reads a field that is there only with a flag.
func (f *fields) when(has, flag uint32) uint32 {
	if has&flag == 0 {
		return 0
	}
	return f.u32()
}

// skip passes over one field for each flag that is set.
func (f *fields) skip(has uint32, flags ...uint32) {
	for _, flag := range flags {
		f.when(has, flag)
	}
}

// readInit returns the file's init part.
func readInit(r io.ReaderAt, size int64) ([]byte, error) {
	n, err := initSize(r, size)
	if err != nil {
		return nil, err
	}
	init := make([]byte, n)
	if _, err := r.ReadAt(init, 0); err != nil {
		return nil, fmt.Errorf("read init part: %w", err)
	}
	return bytes.Clone(init), nil
}
