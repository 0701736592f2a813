package media

import (
	"encoding/binary"
	"time"
)

// sample is a frame on its track's own time scale.
type sample struct {
	dts, pts int64 // ticks since 1970
	key      bool
	data     []byte
}

// part is one track's share of a fragment; end is the decode time after its last sample.
type part struct {
	id      int
	samples []sample
	end     int64
	sync    bool // every sample is a random access point, as in audio
}

// The flags and sizes of the boxes below (ISO/IEC 14496-12, 8.8.4 to 8.8.8). A sample of trun has
// duration and size, and where one needs them flags and the distance from decoding to presentation.
const (
	mfhdSize  = 16
	tfhdSize  = 16
	tfdtSize  = 20
	trunFixed = 20

	tfhdBaseIsMoof  = 0x020000
	trunHasOffset   = 0x000001
	trunHasDuration = 0x000100
	trunHasSize     = 0x000200
	trunHasFlags    = 0x000400
	trunHasShift    = 0x000800
	sampleIsNonSync = 0x010000
	boxVersion1     = 1 << 24
)

// appendHead appends moof and the header of mdat. Only data's length matters of the samples' data, which
// is a fragment's bulk, so that it is not copied here.
func appendHead(b []byte, sequence uint32, parts []part) []byte {
	size, total := 8+mfhdSize, 8
	for _, p := range parts {
		size += p.trafSize()
		for _, s := range p.samples {
			total += len(s.data)
		}
	}
	data := size + 8 // from moof to the part's first sample
	b = appendBox(b, size, "moof")
	b = appendBox(b, mfhdSize, "mfhd", 0, sequence)
	for _, p := range parts {
		b = p.appendTraf(b, data)
		for _, s := range p.samples {
			data += len(s.data)
		}
	}
	return appendBox(b, total, "mdat")
}

// headSize returns how much appendHead appends.
func headSize(parts []part) int {
	size := 8 + mfhdSize + 8
	for _, p := range parts {
		size += p.trafSize()
	}
	return size
}

func appendBox(b []byte, size int, kind string, fields ...uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, kind...)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, f)
	}
	return b
}

// trunFlags returns which fields the part's samples need.
func (p part) trunFlags() uint32 {
	flags := uint32(trunHasOffset | trunHasDuration | trunHasSize)
	for _, s := range p.samples {
		if !p.sync && !s.key {
			flags |= trunHasFlags
		}
		if s.pts != s.dts {
			flags |= trunHasShift
		}
	}
	return flags
}

func (p part) trunSize() int {
	each, flags := 8, p.trunFlags()
	if flags&trunHasFlags != 0 {
		each += 4
	}
	if flags&trunHasShift != 0 {
		each += 4
	}
	return trunFixed + each*len(p.samples)
}

func (p part) trafSize() int { return 8 + tfhdSize + tfdtSize + p.trunSize() }

// appendTraf appends the part's traf; data is the distance from moof to its first sample.
func (p part) appendTraf(b []byte, data int) []byte {
	flags := p.trunFlags()
	b = appendBox(b, p.trafSize(), "traf")
	b = appendBox(b, tfhdSize, "tfhd", tfhdBaseIsMoof, uint32(p.id))
	b = appendBox(b, tfdtSize, "tfdt", boxVersion1)
	b = binary.BigEndian.AppendUint64(b, uint64(p.samples[0].dts))
	b = appendBox(b, p.trunSize(), "trun", boxVersion1|flags, uint32(len(p.samples)), uint32(data))
	for i, s := range p.samples {
		next := p.end
		if i+1 < len(p.samples) {
			next = p.samples[i+1].dts
		}
		b = binary.BigEndian.AppendUint32(b, uint32(next-s.dts))
		b = binary.BigEndian.AppendUint32(b, uint32(len(s.data)))
		if flags&trunHasFlags != 0 {
			own := uint32(0)
			if !p.sync && !s.key {
				own = sampleIsNonSync
			}
			b = binary.BigEndian.AppendUint32(b, own)
		}
		if flags&trunHasShift != 0 {
			b = binary.BigEndian.AppendUint32(b, uint32(int32(s.pts-s.dts)))
		}
	}
	return b
}

const prftSize = 32

// ntpEpoch is 1970 in seconds of NTP, which counts from 1900.
const ntpEpoch = 2208988800

// appendPrft appends the producer reference time box (ISO/IEC 14496-12, section 8.16.5): the wall
// time at which the sample with the given decode time was captured.
func appendPrft(b []byte, track int, wall time.Time, tick int64) []byte {
	b = binary.BigEndian.AppendUint32(b, prftSize)
	b = append(b, "prft"...)
	b = binary.BigEndian.AppendUint32(b, 1<<24) // version 1: 64 bits of media time
	b = binary.BigEndian.AppendUint32(b, uint32(track))
	b = binary.BigEndian.AppendUint32(b, uint32(wall.Unix()+ntpEpoch))
	b = binary.BigEndian.AppendUint32(b, uint32(int64(wall.Nanosecond())<<32/int64(time.Second)))
	return binary.BigEndian.AppendUint64(b, uint64(tick))
}
