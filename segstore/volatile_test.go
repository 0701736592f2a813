package segstore

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// volatile is a disk with a cache that a power cut empties. What is written, created, renamed or removed
// is seen at once, but is certain to outlast a cut only once its file, or its directory, was synced. Of
// the rest any part may: each write, in part or with its length alone, and each entry of a directory by
// itself, but that a rename never loses what it moves. That is less than ext4 and XFS promise.
//
// The index syncs its own files, and is copied as it is at the cut.
type volatile struct {
	disk
	root   string
	before func() // called with mu held before the next change is durable, and after it was made

	mu     sync.Mutex
	names  map[string]*inode // by path, as seen
	stable map[string]*inode // as certain to outlast a cut
	moves  []move            // what was done to names since, in order
}

// inode is a file, or a directory, whose entries stand in the names.
type inode struct {
	dir    bool
	data   []byte  // on stable storage
	writes []write // since, in order
}

// write puts bytes at an offset; without bytes it sets the length.
type write struct {
	at    int64
	bytes []byte
}

// move gives a path to an inode, or takes it away; by renaming, if to is set.
type move struct {
	path  string
	inode *inode
	to    string
}

// newVolatile takes what is in root for stable.
func newVolatile(t *testing.T, root string) *volatile {
	t.Helper()
	v := &volatile{root: root, names: make(map[string]*inode), stable: make(map[string]*inode), before: func() {}}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(root, indexDir) {
			return fs.SkipDir
		}
		n := &inode{dir: d.IsDir()}
		if !n.dir {
			n.data, err = os.ReadFile(path)
		}
		v.names[path], v.stable[path] = n, n
		return err
	}))
	return v
}

func (v *volatile) Open(path string, flag int) (file, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, err := v.disk.Open(path, flag)
	if err != nil {
		return nil, err
	}
	n := v.names[path]
	if n == nil {
		n = &inode{}
		v.enter(move{path: path, inode: n})
	} else if flag&os.O_TRUNC != 0 {
		n.writes = append(n.writes, write{})
		v.before()
	}
	return volatileFile{f, v, n}, nil
}

// enter makes the moves. It needs mu.
func (v *volatile) enter(moves ...move) {
	for _, m := range moves {
		m.do(v.names, v.root)
	}
	v.moves = append(v.moves, moves...)
	v.before()
}

func (v *volatile) Rename(from, to string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.disk.Rename(from, to); err != nil {
		return err
	}
	v.enter(move{path: to, inode: v.names[from]}, move{path: from, to: to})
	return nil
}

func (v *volatile) Remove(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.disk.Remove(path); err != nil {
		return err
	}
	v.enter(move{path: path})
	return nil
}

func (v *volatile) MkdirAll(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var missing []string
	for ; v.names[path] == nil; path = filepath.Dir(path) {
		missing = append(missing, path)
	}
	for _, path := range slices.Backward(missing) {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		v.enter(move{path: path, inode: &inode{dir: true}})
	}
	return nil
}

func (v *volatile) SyncDir(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := v.names[path]; n == nil || !n.dir {
		return &fs.PathError{Op: "sync", Path: path, Err: fs.ErrNotExist}
	}
	v.before()
	v.moves = slices.DeleteFunc(v.moves, func(m move) bool {
		return filepath.Dir(m.path) == path && m.do(v.stable, v.root)
	})
	return nil
}

// do reports whether it changed names: it takes away nothing that would have no other name then.
func (m move) do(names map[string]*inode, root string) bool {
	if m.inode != nil {
		names[m.path] = m.inode
		return true
	}
	if m.to != "" && names[m.to] != names[m.path] {
		return false
	}
	for dir := m.to; dir != "" && dir != root; dir = filepath.Dir(dir) {
		if names[dir] == nil {
			return false
		}
	}
	delete(names, m.path)
	return true
}

type volatileFile struct {
	file
	v *volatile
	n *inode
}

func (f volatileFile) WriteAt(b []byte, at int64) (int, error) {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if n, err := f.file.WriteAt(b, at); err != nil {
		return n, err
	}
	f.n.writes = append(f.n.writes, write{at, slices.Clone(b)})
	f.v.before()
	return len(b), nil
}

func (f volatileFile) Truncate(size int64) error {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if err := f.file.Truncate(size); err != nil {
		return err
	}
	f.n.writes = append(f.n.writes, write{at: size})
	f.v.before()
	return nil
}

func (f volatileFile) Sync() error {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	f.v.before()
	for _, w := range f.n.writes {
		f.n.data = w.do(f.n.data)
	}
	f.n.writes = nil
	return nil
}

// do returns data after the write.
func (w write) do(data []byte) []byte {
	size := w.at + int64(len(w.bytes))
	if w.bytes == nil {
		data = data[:min(int64(len(data)), size):min(int64(len(data)), size)]
	}
	if grow := size - int64(len(data)); grow > 0 {
		data = append(slices.Clip(data), make([]byte, grow)...)
	}
	data = slices.Clone(data)
	copy(data[w.at:], w.bytes)
	return data
}

// luck decides what of the uncertain outlasts a cut: nothing, all, or what a seed says.
type luck struct {
	all  bool
	rand *rand.Rand
}

func lucks(seed uint64) []luck {
	return []luck{{}, {all: true}, {rand: rand.New(rand.NewPCG(seed, 1))}}
}

func (l luck) keeps() bool { return l.all || l.rand != nil && l.rand.IntN(2) == 0 }

// some returns the part of a write that outlasts: nothing, its length with zeros, its start, its end, or all.
func (l luck) some(w write, data []byte) []byte {
	if l.rand == nil || len(w.bytes) == 0 {
		if l.keeps() {
			data = w.do(data)
		}
		return data
	}
	part := write{w.at, slices.Clone(w.bytes)}
	cut := l.rand.IntN(len(w.bytes) + 1)
	switch l.rand.IntN(5) {
	case 0:
		return data
	case 1:
		clear(part.bytes)
	case 2:
		part.bytes = part.bytes[:cut]
	case 3:
		clear(part.bytes[:cut])
	}
	return part.do(data)
}

// uncertain reports whether a cut now has more than one outcome.
func (v *volatile) uncertain() bool {
	return len(v.moves) > 0 || slices.ContainsFunc(slices.Collect(func(yield func(*inode) bool) {
		for _, n := range v.names {
			if !yield(n) {
				return
			}
		}
	}), func(n *inode) bool { return len(n.writes) > 0 })
}

// cut writes into an empty directory what a power cut now leaves. It needs mu.
func (v *volatile) cut(t *testing.T, to string, l luck) {
	t.Helper()
	left := make(map[string]*inode)
	for path, n := range v.stable {
		left[path] = n
	}
	for _, m := range v.moves {
		if l.keeps() {
			m.do(left, v.root)
		}
	}
	for _, path := range slices.Sorted(func(yield func(string) bool) {
		for path := range left {
			if !yield(path) {
				return
			}
		}
	}) {
		target := to + strings.TrimPrefix(path, v.root)
		if _, err := os.Stat(filepath.Dir(target)); err != nil {
			continue // its directory is lost
		}
		if n := left[path]; n.dir {
			must(t, os.MkdirAll(target, 0o755))
		} else {
			data := n.data
			for _, w := range n.writes {
				data = l.some(w, data)
			}
			must(t, os.WriteFile(target, data, 0o644))
		}
	}
	copyIndex(t, filepath.Join(v.root, indexDir), filepath.Join(to, indexDir))
}

// copyIndex copies an index without its ballast and without its holes, which are most of it. It does so
// again if the engine was at work meanwhile: a cut has one moment.
func copyIndex(t *testing.T, from, to string) {
	t.Helper()
	for before := ""; ; {
		now := tableNames(from)
		if now == before {
			return
		}
		before = now
		must(t, os.RemoveAll(to))
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			target := to + strings.TrimPrefix(path, from)
			switch {
			case err != nil || d.Name() == "ballast":
				return err
			case d.IsDir():
				return os.MkdirAll(target, 0o755)
			}
			return copySparse(path, target)
		})
		if err != nil { // the engine took something away
			before = ""
		}
	}
}

// tableNames returns the names and lengths of all files below dir.
func tableNames(dir string) string {
	var b strings.Builder
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			fmt.Fprintln(&b, path, info.Size())
		}
		return nil
	})
	return b.String()
}

func copySparse(from, to string) error {
	const seekData, seekHole = 3, 4
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for at, err := in.Seek(0, seekData); err == nil; at, err = in.Seek(at, seekData) {
		end, err := in.Seek(at, seekHole)
		if err != nil {
			return err
		}
		part := make([]byte, end-at)
		if _, err := in.ReadAt(part, at); err != nil {
			return err
		}
		if _, err := out.WriteAt(part, at); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(info.Size())
}

// TestCopySparse also holds that data beside holes is not lost.
func TestCopySparse(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	f, err := os.Create(from)
	must(t, err)
	for _, at := range []int64{0, 1 << 20, 3<<20 - 5} {
		_, err := f.WriteAt([]byte("there"), at)
		must(t, err)
	}
	must(t, f.Truncate(9<<20))
	must(t, f.Close())
	must(t, copySparse(from, to))
	a, err := os.ReadFile(from)
	must(t, err)
	b, err := os.ReadFile(to)
	must(t, err)
	if !slices.Equal(a, b) {
		t.Error("copy differs")
	}
}
