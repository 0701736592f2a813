package ingest

import (
	"slices"
	"testing"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
)

func TestUnusedFormatsAreNamed(t *testing.T) {
	var s Session
	medium := &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{&format.VP8{PayloadTyp: 96}}}
	if err := s.choose(&description.Session{Medias: []*description.Media{medium}}, medium); err != nil {
		t.Fatal(err)
	}
	if want := []string{"video VP8/90000"}; !slices.Equal(s.Unused(), want) || len(s.tracks) != 0 {
		t.Errorf("unused %q, want %q", s.Unused(), want)
	}
}
