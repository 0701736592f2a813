package segstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
)

// replica is a store that holds segments in part, and what a test knows that it must hold.
type replica struct {
	*rapid.T
	t     *testing.T
	dir   string
	s     *Store
	segs  []*modelled
	round int
}

// modelled is one segment of a replica: per fragment whether it is held, and surely so after a kill.
type modelled struct {
	testSegment
	begun, sealed bool
	footer, sure  bool // the footer was given; it survives a kill
	held, synced  []bool
	forged        int // index of a held fragment that is not the origin's; -1
	forgery       branchline.Fragment
	forgedBytes   []byte
}

func (m *modelled) id() branchline.SegmentID { return m.start.ID }

// forget is what quarantine does to the model.
func (m *modelled) forget() {
	n := len(m.fragments)
	*m = modelled{testSegment: m.testSegment, held: make([]bool, n), synced: make([]bool, n), forged: -1}
}

func (m *modelled) complete() bool {
	return m.footer && !slices.Contains(m.held, false) && m.forged < 0
}

// settle notes that a segment with all fragments and its footer is sealed.
func (m *modelled) settle() { m.sealed = m.sealed || m.complete() }

func (r *replica) open() {
	s, err := Open(r.dir, Options{Trust: func(_ branchline.StreamID, key ed25519.PublicKey) error {
		if !key.Equal(testKey().Public()) {
			return branchline.ErrDenied
		}
		return nil
	}})
	must(r.t, err)
	s.limit = 2 // of three segments: one is always on disk alone
	r.s = s
}

func (r *replica) draw() *modelled { return rapid.SampledFrom(r.segs).Draw(r.T, "segment") }

func (r *replica) want(what string, err, want error) {
	if !errors.Is(err, want) {
		r.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func (r *replica) begin(m *modelled) {
	r.want("begin", r.s.Begin(testStream, m.start), nil)
	m.begun = true
}

// puts has several writers put the same and other fragments at the same time.
func (r *replica) puts(m *modelled) {
	n := len(m.fragments)
	writers := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, n-1), 1, n), 1, 3).Draw(r.T, "writers")
	var group errgroup.Group
	for _, order := range writers {
		group.Go(func() error {
			for _, i := range order {
				err := r.s.Put(m.id(), m.fragments[i], m.data(i))
				var want error
				switch {
				case !m.begun:
					want = branchline.ErrNotFound
				case i == m.forged:
					want = branchline.ErrMismatch
				}
				if !errors.Is(err, want) && (m.begun || !errors.Is(err, branchline.ErrGone)) {
					return fmt.Errorf("put %d: %w, want %w", i, err, want)
				}
			}
			return nil
		})
	}
	r.want("puts", group.Wait(), nil)
	for _, i := range slices.Concat(writers...) {
		if m.begun && i != m.forged {
			m.held[i] = true
		}
	}
	m.settle()
}

// wrongPut offers bytes that are not those of their row, and a row that lies across others.
func (r *replica) wrongPut(m *modelled) {
	if !m.begun || m.sealed {
		return
	}
	i := rapid.IntRange(0, len(m.fragments)-1).Draw(r.T, "fragment")
	data := bytes.Clone(m.data(i))
	data[rapid.IntRange(0, len(data)-1).Draw(r.T, "byte")] ^= 1
	r.want("put of wrong bytes", r.s.Put(m.id(), m.fragments[i], data), branchline.ErrMismatch)
	r.want("put of short bytes", r.s.Put(m.id(), m.fragments[i], data[1:]), branchline.ErrMismatch)
	if m.held[i] || m.footer {
		f := m.fragments[i]
		f.Offset++
		r.want("put across", r.s.Put(m.id(), f, m.data(i)), branchline.ErrMismatch)
	}
}

// forge puts a fragment that is sound in itself and not the origin's. Without a footer nobody can know.
func (r *replica) forge(m *modelled) {
	i := rapid.IntRange(0, len(m.fragments)-1).Draw(r.T, "fragment")
	if !m.begun || m.sealed || m.forged >= 0 || m.held[i] {
		return
	}
	data := bytes.Clone(m.data(i))
	data[len(data)-ChecksumSize-1] ^= 1
	data = append(data[:len(data)-ChecksumSize], ChecksumBox(data[:len(data)-ChecksumSize])...)
	f := m.fragments[i]
	f.Hash = sha256.Sum256(data)
	err := r.s.Put(m.id(), f, data)
	if m.footer {
		r.want("put of a forgery against the footer", err, branchline.ErrMismatch)
		return
	}
	r.want("put of a forgery", err, nil)
	m.forged, m.forgery, m.forgedBytes, m.held[i] = i, f, data, true
}

func (r *replica) seal(m *modelled) {
	err := r.s.Seal(m.id(), m.seal)
	switch {
	case !m.begun && errors.Is(err, branchline.ErrGone):
	case !m.begun:
		r.want("seal", err, branchline.ErrNotFound)
	case m.forged >= 0:
		r.want("seal over a forgery", err, branchline.ErrMismatch)
	default:
		r.want("seal", err, nil)
		m.footer = true
		m.settle()
	}
}

// wrongSeal offers footers that are not the segment's: damaged, of another, by a stranger.
func (r *replica) wrongSeal(m *modelled) {
	if !m.begun {
		return
	}
	seal, want := m.seal, branchline.ErrMismatch
	switch kind := rapid.SampledFrom([]string{"hash", "table", "signature", "another", "stranger"}).Draw(r.T, "kind"); {
	case kind == "hash":
		seal.Hash[3]++
	case m.sealed: // sealed already, and so the hash alone counts
		return
	case kind == "another":
		seal = makeSegment(99, 900, 3, branchline.Hash{}).seal
	case kind == "stranger":
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
		var err error
		seal.Footer, seal.Hash, err = SealFooter(Footer{ID: m.id(), Stream: testStream, Run: 1, Number: m.start.Number,
			Codecs: m.start.Codecs, Fragments: m.fragments}, m.start.Init, key)
		must(r.t, err)
		want = branchline.ErrDenied
	default:
		seal.Footer = bytes.Clone(seal.Footer)
		seal.Footer[len(seal.Footer)-map[string]int{"table": endSize + 1, "signature": trailerSize + 1}[kind]] ^= 1
	}
	r.want("wrong seal", r.s.Seal(m.id(), seal), want)
}

// quarantine is what a hub does after a mismatch.
func (r *replica) quarantine(m *modelled) {
	if m.begun && m.forged >= 0 {
		r.want("quarantine", r.s.Quarantine(m.id(), "test"), nil)
		m.forget()
	}
}

func (r *replica) sync(m *modelled) {
	if m.begun {
		r.want("sync", r.s.Sync(r.t.Context(), m.id()), nil)
		copy(m.synced, m.held)
		m.sure = m.footer
	}
}

// syncAll and reopen leave nothing unsynced.
func (r *replica) syncAll() {
	r.s.syncAll()
	for _, m := range r.segs {
		r.sync(m)
	}
}

func (r *replica) reopen() {
	must(r.t, r.s.Close())
	for _, m := range r.segs {
		copy(m.synced, m.held)
		m.sure = m.footer
	}
	r.open()
}

// kill goes on with a copy of the files as they stand. What was not synced may be there and may not. The index
// comes along when it is closed, as its engine merges files by itself; closing enters nothing into it.
func (r *replica) kill() {
	dir := r.t.TempDir()
	for _, name := range []string{growingDir, segmentsDir, quarantineDir} {
		from := filepath.Join(r.dir, name)
		if _, err := os.Stat(from); err == nil {
			must(r.t, os.CopyFS(filepath.Join(dir, name), os.DirFS(from)))
		}
	}
	must(r.t, r.s.Close())
	must(r.t, os.Rename(filepath.Join(r.dir, indexDir), filepath.Join(dir, indexDir)))
	must(r.t, os.RemoveAll(r.dir))
	r.dir = dir
	r.open()
	for _, m := range r.segs {
		if m.begun && !m.sealed {
			r.afterKill(m)
		}
	}
}

func (r *replica) afterKill(m *modelled) {
	rows := make(map[int64]branchline.Fragment)
	for _, f := range r.list(m) {
		rows[f.Offset] = f
	}
	_, err := r.s.Segment(m.id())
	if m.begun = err == nil; !m.begun && (slices.Contains(m.synced, true) || m.sure) {
		r.Fatalf("killed: what was synced is gone: %v", err)
	}
	for i, f := range m.fragments {
		_, held := rows[f.Offset]
		if m.synced[i] && !held || held && !m.held[i] {
			r.Fatalf("killed: fragment %d held %v, was held %v, synced %v", i, held, m.held[i], m.synced[i])
		}
		m.held[i] = held
	}
	if m.forged >= 0 && !m.held[m.forged] {
		m.forged = -1
	}
	if !m.sure { // it may have been synced by the store itself, so give it again
		m.footer = false
		if m.begun && m.forged < 0 {
			r.seal(m)
		}
	}
	m.settle()
}

func (r *replica) list(m *modelled) []branchline.Fragment {
	all, err := r.s.Segments(r.t.Context(), testStream, branchline.TimeRange{
		Start: m.start.Start, End: m.start.Start.Add(10 * time.Second)})
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		r.Fatal(err)
	}
	for _, seg := range all {
		if seg.ID == m.id() {
			if seg.Sealed != m.sealed {
				r.Fatalf("listed as sealed: %v, want %v", seg.Sealed, m.sealed)
			}
			return seg.Fragments
		}
	}
	return nil
}

func (r *replica) fetch(id branchline.SegmentID, b branchline.ByteRange) ([]byte, error) {
	body, err := r.s.Fetch(context.Background(), id, b)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// check holds what is listed and played against the model.
func (r *replica) check() {
	for _, m := range r.segs {
		if !m.begun {
			continue
		}
		var want []branchline.Fragment
		last := -1
		for i, f := range m.fragments {
			if i == m.forged {
				f = m.forgery
			}
			if m.held[i] {
				want, last = append(want, f), i
			}
		}
		if got := r.list(m); !slices.Equal(got, want) {
			r.Fatalf("listed %d fragments of %v, want %d: %+v", len(got), m.id(), len(want), m.held)
		}
		for i, f := range m.fragments {
			got, err := r.fetch(m.id(), branchline.ByteRange{Start: f.Offset, End: f.End()})
			data := m.data(i)
			if i == m.forged {
				data = m.forgedBytes
			}
			switch {
			case m.held[i] && (err != nil || !bytes.Equal(got, data)):
				r.Fatalf("fragment %d is held and not played: %v", i, err)
			case !m.held[i] && (m.footer || i < last):
				r.want("fetch of a hole", err, branchline.ErrUnavailable)
			case !m.held[i] && !errors.Is(err, branchline.ErrUnavailable) && !errors.Is(err, branchline.ErrInvalid):
				r.Fatalf("fragment %d is not held: %v", i, err)
			}
		}
		init, err := r.fetch(m.id(), branchline.ByteRange{End: int64(len(m.start.Init))})
		if err != nil || !bytes.Equal(init, m.start.Init) {
			r.Fatalf("init part: %v", err)
		}
	}
}

// TestPartialModel does anything to three segments held in part, in any order: at every moment exactly what
// is held is played, and at the end all files are the origin's.
func TestPartialModel(t *testing.T) {
	r := &replica{t: t, dir: t.TempDir()}
	r.open()
	defer func() { r.s.Close() }()
	rapid.Check(t, func(rt *rapid.T) {
		r.T, r.segs = rt, nil
		for i := range 3 {
			r.round++
			n := rapid.IntRange(1, 6).Draw(rt, "fragments")
			m := &modelled{testSegment: makeSegment(uint32(i), 10*r.round, n, branchline.Hash{})}
			m.forget()
			r.segs = append(r.segs, m)
		}
		for range rapid.IntRange(5, 30).Draw(rt, "steps") {
			r.step(rapid.IntRange(0, 79).Draw(rt, "step"))
			r.check()
		}
		r.finish()
	})
	checkFiles(t, r.dir)
}

func (r *replica) step(kind int) {
	switch m := r.draw(); {
	case kind < 12:
		r.begin(m)
	case kind < 32:
		r.puts(m)
	case kind < 36:
		r.wrongPut(m)
	case kind < 41:
		r.forge(m)
	case kind < 50:
		r.seal(m)
	case kind < 58:
		r.wrongSeal(m)
	case kind < 63:
		r.quarantine(m)
	case kind < 71:
		r.sync(m)
	case kind < 75:
		r.syncAll()
	case kind < 77:
		r.reopen()
	case kind < 79:
		r.kill()
	}
}

// finish brings what is missing, as a fetcher would, and compares the files.
func (r *replica) finish() {
	for _, m := range r.segs {
		r.quarantine(m)
		r.begin(m)
		for i, f := range m.fragments {
			r.want("put", r.s.Put(m.id(), f, m.data(i)), nil)
			m.held[i] = true
		}
		r.seal(m)
		got, err := os.ReadFile(Path(r.dir, testStream, m.id(), m.start.Start))
		if err != nil || !bytes.Equal(got, m.file) {
			r.Fatalf("file differs from the origin's: %v", err)
		}
	}
	r.check()
}
