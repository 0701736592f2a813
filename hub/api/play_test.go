package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
)

// pictures reads fragmented MP4 with an independent reader: "i" for each init part, and the decode
// time of each fragment in seconds since epoch.
func pictures(t *testing.T, data []byte) string {
	t.Helper()
	var out []string
	var scale float64
	for pos := uint64(0); pos < uint64(len(data)); {
		box, err := mp4.DecodeBox(pos, bytes.NewReader(data[pos:]))
		if err != nil {
			t.Fatalf("at %d of %d: %v", pos, len(data), err)
		}
		switch b := box.(type) {
		case *mp4.MoovBox:
			scale = float64(b.Trak.Mdia.Mdhd.Timescale)
			out = append(out, "i")
		case *mp4.MoofBox:
			seconds := float64(b.Traf.Tfdt.BaseMediaDecodeTime())/scale - float64(epoch().Unix())
			out = append(out, strconv.FormatFloat(seconds, 'f', -1, 64))
		}
		pos += box.Size()
	}
	return strings.Join(out, " ")
}

// steps lists the starts of half-second fragments.
func steps(from, to float64) string {
	var out []string
	for s := from; s < to; s += 0.5 {
		out = append(out, strconv.FormatFloat(s, 'f', -1, 64))
	}
	return strings.Join(out, " ")
}

func TestPlay(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 25, false))  // three segments
	f.record(run(t, 2, 40, 5, false))  // after a gap, with the same init part
	f.record(run(t, 3, 100, 3, true))  // with another one
	f.record(run(t, 4, 110, 3, false)) // and back
	for _, c := range []struct {
		what     string
		from, to float64
		want     string
	}{
		{"from a key", 3, 5, "i " + steps(3, 5)},
		{"from between keys", 3.75, 5, "i " + steps(3, 5)},
		{"to inside a fragment", 3, 4.25, "i " + steps(3, 4.5)},
		{"a moment", 3.6, 3.7, "i " + steps(3, 4)},
		{"over two segments", 8, 12, "i " + steps(8, 12)},
		{"a whole segment and parts", 9, 21, "i " + steps(9, 21)},
		{"from before the beginning", -100, 1, "i " + steps(0, 1)},
		{"over a gap", 24, 41, "i " + steps(24, 25) + " " + steps(40, 41)},
		{"from inside a gap", 30, 41, "i " + steps(40, 41)},
		{"into the future", 44, 90, "i " + steps(44, 45)},
		{"another init part", 44, 101, "i " + steps(44, 45) + " i " + steps(100, 101)},
		{"back to the first", 102, 111, "i " + steps(102, 103) + " i " + steps(110, 111)},
	} {
		a := do(t, f.local, request{line: "GET " + playPath(c.from, c.to)})
		if a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", c.what, a.Status, a.body)
			continue
		}
		if got := pictures(t, a.body); got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.what, got, c.want)
		}
		if kind, params, _ := mime.ParseMediaType(a.Header.Get("Content-Type")); kind != "video/mp4" ||
			!strings.HasPrefix(params["codecs"], "avc1.42c0") || a.Header.Get("Content-Disposition") != "" {
			t.Errorf("%s: headers %v", c.what, a.Header)
		}
	}
}

func TestPlayErrors(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	for _, c := range []struct {
		what, path string
		status     int
		code       ErrorCode
	}{
		{"nothing there", playPath(100, 200), 404, ErrorCodeNothingRecorded},
		{"just after the end", playPath(3, 4), 404, ErrorCodeNothingRecorded},
		{"backwards", playPath(2, 1), 400, ErrorCodeInvalid},
		{"empty", playPath(2, 2), 400, ErrorCodeInvalid},
		{"no range", strings.Split(playPath(0, 1), "?")[0], 400, ErrorCodeInvalid},
		{"no time", strings.Replace(playPath(0, 1), "2026", "x", 1), 400, ErrorCodeInvalid},
		{"half a question", playPath(0, 1) + "&download=perhaps", 400, ErrorCodeInvalid},
		{"no such feed", strings.Replace(playPath(0, 1), ".main", ".other", 1), 404, ErrorCodeNotFound},
		{"no such camera", strings.Replace(playPath(0, 1), "entrance", "exit", 1), 404, ErrorCodeNotFound},
		{"no stream's name", strings.Replace(playPath(0, 1), "berlin.entrance.main", "..", 1), 404, ErrorCodeNotFound},
		{"a bad name", strings.Replace(playPath(0, 1), "berlin.", "Berlin.", 1), 400, ErrorCodeInvalid},
	} {
		if a := do(t, f.local, request{line: "GET " + c.path}); a.StatusCode != c.status || a.code() != c.code {
			t.Errorf("%s: %s %s, want %d %s", c.what, a.Status, a.body, c.status, c.code)
		}
	}
}

func TestDownload(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	path := playPath(0, 2) + "&download=1"
	viewer := bearer(f.user("vera", access.RoleViewer))
	if a := do(t, f.network, request{line: "GET " + path, header: viewer}); a.code() != ErrorCodeDenied {
		t.Errorf("viewer: %s %s", a.Status, a.body)
	}
	operator := bearer(f.user("otto", access.RoleOperator))
	a := do(t, f.network, request{line: "GET " + path, header: operator})
	want := `attachment; filename=berlin.entrance.main_20260301T080000Z_20260301T080002Z.mp4`
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Disposition") != want {
		t.Errorf("operator: %s %v", a.Status, a.Header)
	}
	entries := must[[]access.Entry](t)(f.Access.Audit(1))
	if e := entries[0]; e.User != "otto" || e.Action != access.ActionDownload ||
		e.Object != fmt.Sprintf("%s %s/%s", testStream, text(0), text(2)) {
		t.Errorf("audit %+v", e)
	}
	a = do(t, f.network, request{line: "HEAD " + path, header: operator})
	if a.StatusCode != http.StatusOK || len(a.body) > 0 {
		t.Errorf("HEAD: %s, %d bytes", a.Status, len(a.body))
	}
}

// dark is the source of a hub that holds nothing while its site is not linked.
type dark struct{ branchline.Source }

func (dark) Segments(context.Context, branchline.StreamID, branchline.TimeRange) ([]branchline.Segment, error) {
	return nil, nil
}

func TestPlayWhatIsOutOfReach(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	f.Source = dark{f.Source}
	if err := f.Catalog.LinkDown(testSite, at(100), catalog.Why{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to float64
		want     ErrorCode
	}{{1, 2, ErrorCodeUnavailable}, {200, 300, ErrorCodeNothingRecorded}} {
		if a := do(t, f.local, request{line: "GET " + playPath(c.from, c.to)}); a.code() != c.want {
			t.Errorf("%v to %v: %s %s, want %s", c.from, c.to, a.Status, a.body, c.want)
		}
	}
}

// counted counts what is fetched, and can refuse.
type counted struct {
	branchline.Source
	fetches atomic.Int32
	open    atomic.Int32
	refuse  func(n int) error
}

func (s *counted) Fetch(ctx context.Context, id branchline.SegmentID, r branchline.ByteRange) (io.ReadCloser, error) {
	n := int(s.fetches.Add(1))
	if s.refuse != nil {
		if err := s.refuse(n); err != nil {
			return nil, err
		}
	}
	reader, err := s.Source.Fetch(ctx, id, r)
	if err != nil {
		return nil, err
	}
	s.open.Add(1)
	return closing{reader, func() { s.open.Add(-1) }}, nil
}

type closing struct {
	io.ReadCloser
	closed func()
}

func (c closing) Close() error { c.closed(); return c.ReadCloser.Close() }

func TestContiguousFragmentsAreOneFetch(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 25, false))
	source := &counted{Source: f.Source}
	f.Source = source
	if a := do(t, f.local, request{line: "GET " + playPath(0, 25)}); pictures(t, a.body) != "i "+steps(0, 25) {
		t.Fatal("wrong pictures")
	}
	// The init part once, and each of three segments.
	if n, open := source.fetches.Load(), source.open.Load(); n != 4 || open != 0 {
		t.Errorf("%d fetches for three segments, %d still open", n, open)
	}
}

// TestTroubleOnTheWay refuses the n-th fetch: the first is the init part, then come the segments.
func TestTroubleOnTheWay(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 25, false))
	source := &counted{Source: f.Source}
	f.Source = source
	for _, c := range []struct {
		what   string
		n      int
		err    error
		want   string // pictures, or the error's code
		broken bool
	}{
		{"the site is down", 1, branchline.ErrUnavailable, "unavailable", false},
		{"removed meanwhile", 3, branchline.ErrGone, "i " + steps(0, 10) + " " + steps(20, 25), false},
		{"the first is removed meanwhile", 1, branchline.ErrGone, "i " + steps(10, 25), false},
		{"the link is cut on the way", 3, branchline.ErrUnavailable, "i " + steps(0, 10), true},
	} {
		source.fetches.Store(0)
		source.refuse = func(n int) error {
			if n == c.n {
				return c.err
			}
			return nil
		}
		res := must[*http.Response](t)(f.local.Client().Get(f.local.URL + playPath(0, 25)))
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		got := string(answered{res, body}.code())
		if res.StatusCode == http.StatusOK {
			got = pictures(t, body)
		}
		if got != c.want || (err != nil) != c.broken {
			t.Errorf("%s: got %s, %v; want %s", c.what, got, err, c.want)
		}
		if open := source.open.Load(); open != 0 {
			t.Errorf("%s: %d readers are still open", c.what, open)
		}
	}
}

// endless is a source whose fetches never end; it tells when one was closed.
type endless struct {
	branchline.Source
	closed chan struct{}
}

func (s endless) Fetch(ctx context.Context, id branchline.SegmentID, r branchline.ByteRange) (io.ReadCloser, error) {
	if r.Start == 0 {
		return s.Source.Fetch(ctx, id, r)
	}
	return closing{io.NopCloser(zeros{}), func() { close(s.closed) }}, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestPlaybackEndsWithItsReceiver(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	source := endless{f.Source, make(chan struct{})}
	f.Source = source
	ctx, cancel := context.WithCancel(t.Context())
	req := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet, f.local.URL+playPath(0, 3), nil))
	res := must[*http.Response](t)(f.local.Client().Do(req))
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-source.closed:
	case <-time.After(10 * time.Second):
		t.Error("the reader at the source is still open")
	}
}

func TestTooManyPlaybacks(t *testing.T) {
	f := newFixture(t)
	f.plays.Store(maxPlays)
	rec := httptest.NewRecorder()
	f.Handler(true).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, playPath(0, 1), nil))
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if n := f.plays.Load(); n != maxPlays {
		t.Errorf("%d playbacks are counted", n)
	}
}

// TestPieces describes fragments of a second and ten bytes each by their second, a key by "k" behind
// it, and the result by the seconds played, ranges of bytes parted by "|".
func TestPieces(t *testing.T) {
	for _, c := range []struct {
		what, have string
		from, to   float64
		want       string
	}{
		{"all", "0k 1 2k 3", 0, 4, "0 1 2 3"},
		{"from a key before", "0k 1 2k 3", 3.5, 4, "2 3"},
		{"up to the end", "0k 1 2k 3", 0, 2, "0 1"},
		{"a hole", "0k 1 4k 5", 0, 6, "0 1|4 5"},
		{"a hole before a key", "0k 1 3 4k 5", 0, 6, "0 1|4 5"},
		{"a start without key", "1 2 3k 4", 0, 6, "3 4"},
		{"no key at all", "1 2 3", 0, 6, ""},
		{"the range lies in a hole", "0k 1 8k 9", 4, 6, ""},
		{"what leads up to a hole is left out", "0k 1 8k 9", 4, 9, "8"},
		{"the hole is right after the key", "0k 2k 3", 1.5, 4, "2 3"},
		{"nothing", "", 0, 6, ""},
		{"after", "0k 1", 2, 6, ""},
	} {
		var seg branchline.Segment
		for _, f := range strings.Fields(c.have) {
			number, key := strings.CutSuffix(f, "k")
			n := must[int](t)(strconv.Atoi(number))
			seg.Fragments = append(seg.Fragments, branchline.Fragment{
				Offset: int64(100 + 10*n), Length: 10, Start: at(float64(n)), Duration: time.Second, Key: key,
			})
		}
		var got []string
		for _, p := range pieces(seg, branchline.TimeRange{Start: at(c.from), End: at(c.to)}) {
			var part []string
			for o := p.Start; o < p.End; o += 10 {
				part = append(part, fmt.Sprint((o-100)/10))
			}
			got = append(got, strings.Join(part, " "))
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s: got %q, want %q", c.what, s, c.want)
		}
	}
}

// pages is a source with many segments in small answers.
type pages struct {
	branchline.Source
	all []branchline.Segment
}

func (p pages) Segments(
	_ context.Context, _ branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	var found []branchline.Segment
	for _, s := range p.all {
		if s.Span.Overlaps(span) && len(found) < branchline.MaxSegments {
			found = append(found, s)
		}
	}
	return found, nil
}

func (p pages) Fetch(_ context.Context, id branchline.SegmentID, r branchline.ByteRange) (io.ReadCloser, error) {
	if r.Start == 0 {
		return io.NopCloser(strings.NewReader("init")), nil
	}
	return io.NopCloser(bytes.NewReader(id[:4])), nil
}

func TestMoreSegmentsThanOneAnswerHolds(t *testing.T) {
	const n = 2*branchline.MaxSegments + 17
	var source pages
	var want []byte
	for i := range n {
		id := branchline.SegmentID{byte(i >> 16), byte(i >> 8), byte(i), 1}
		start := at(float64(i))
		source.all = append(source.all, branchline.Segment{
			ID: id, Run: 1, InitSize: 4, Span: branchline.TimeRange{Start: start, End: start.Add(time.Second)},
			Fragments: []branchline.Fragment{{Offset: 4, Length: 4, Start: start, Duration: time.Second, Key: true}},
		})
		want = append(want, id[:4]...)
	}
	p := playback{source: source, span: branchline.TimeRange{Start: at(0), End: at(n)}}
	if err := p.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec := &deadlined{httptest.NewRecorder()}
	if _, err := p.copy(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	if got := rec.Body.Bytes(); !bytes.Equal(got, append([]byte("init"), want...)) {
		t.Errorf("%d bytes, want %d", len(got), len(want)+4)
	}
	p = playback{source: pages{}, span: p.span}
	if err := p.open(t.Context()); !errors.Is(err, errNothing) {
		t.Errorf("without segments: %v", err)
	}
}

type deadlined struct{ *httptest.ResponseRecorder }

func (deadlined) SetWriteDeadline(time.Time) error { return nil }
