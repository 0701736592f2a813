package media

import (
	"bytes"
	"testing"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
)

// TestHeadIsThatOfTheLibrary: the boxes before a fragment's data are those that another writer makes.
func TestHeadIsThatOfTheLibrary(t *testing.T) {
	const base = int64(1_770_000_000) * VideoClockRate
	data := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n) }
	video := func(samples ...sample) part { return part{id: 1, samples: samples, end: base + 9000} }
	for name, parts := range map[string][]part{
		"key frame alone": {video(sample{dts: base, pts: base, key: true, data: data(900)})},
		"key and others": {video(sample{dts: base, pts: base, key: true, data: data(900)},
			sample{dts: base + 3600, pts: base + 3600, data: data(20)})},
		"no key": {video(sample{dts: base, pts: base, data: data(1)})},
		"reordered": {video(sample{dts: base, pts: base + 7200, key: true, data: data(9)},
			sample{dts: base + 3600, pts: base, data: data(8)}, sample{dts: base + 7200, pts: base + 3600, data: nil})},
		"with sound": {video(sample{dts: base, pts: base, key: true, data: data(90)},
			sample{dts: base + 3600, pts: base + 3600, data: data(20)}),
			{id: 2, sync: true, end: 2048, samples: []sample{{dts: 0, data: data(7)}, {dts: 1024, pts: 1024, data: data(6)}}}},
	} {
		head := appendHead([]byte{}, 7, parts)
		if len(head) != headSize(parts) {
			t.Errorf("%s: %d bytes, said to be %d", name, len(head), headSize(parts))
		}
		moof := fmp4.Part{SequenceNumber: 7}
		var all []byte
		for _, p := range parts {
			track := &fmp4.PartTrack{ID: p.id, BaseTime: uint64(p.samples[0].dts)}
			for i, s := range p.samples {
				next := p.end
				if i+1 < len(p.samples) {
					next = p.samples[i+1].dts
				}
				track.Samples = append(track.Samples, &fmp4.Sample{Duration: uint32(next - s.dts),
					PTSOffset: int32(s.pts - s.dts), IsNonSyncSample: !p.sync && !s.key, Payload: s.data})
				all = append(all, s.data...)
			}
			moof.Tracks = append(moof.Tracks, track)
		}
		var want seekablebuffer.Buffer
		if err := moof.Marshal(&want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(append(head, all...), want.Bytes()) {
			t.Errorf("%s:\ngot  %x\nwant %x", name, head, want.Bytes())
		}
	}
}
