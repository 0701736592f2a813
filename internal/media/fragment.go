package media

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
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

// marshalHead writes moof and the header of mdat. Only data's length matters of the samples' data.
func marshalHead(sequence uint32, parts []part) ([]byte, error) {
	moof := fmp4.Part{SequenceNumber: sequence}
	size := 0
	for _, p := range parts {
		t := &fmp4.PartTrack{ID: p.id, BaseTime: uint64(p.samples[0].dts)}
		for i, s := range p.samples {
			next := p.end
			if i+1 < len(p.samples) {
				next = p.samples[i+1].dts
			}
			t.Samples = append(t.Samples, &fmp4.Sample{
				Duration:        uint32(next - s.dts),
				PTSOffset:       int32(s.pts - s.dts),
				IsNonSyncSample: !p.sync && !s.key,
				Payload:         s.data,
			})
			size += len(s.data)
		}
		moof.Tracks = append(moof.Tracks, t)
	}
	var buf seekablebuffer.Buffer
	if err := moof.Marshal(&buf); err != nil {
		return nil, fmt.Errorf("write fragment header: %w", err)
	}
	return buf.Bytes()[: buf.Len()-size : buf.Len()-size], nil
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
