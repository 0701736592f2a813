package segstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
	"github.com/branchline-video/branchline/segstore/retain"
)

// A segment that was lost comes back as a file: one that somebody puts into restore/, or that Restore
// writes there. What is whole, of this store and not held is taken in; what is not gets the name of a
// refused file, so that somebody sees it, and nothing of the store is changed by it.

const (
	restoreDir = "restore"
	// restoreEvery is how often restore/ is looked into.
	restoreEvery = 30 * time.Second
	// maxRestored bounds the files that are taken in at a look.
	maxRestored = 1000
	// maxRestoredSize bounds a file that Restore takes, in bytes: half an hour of a camera of 16 Mbit/s.
	maxRestoredSize = 4 << 30

	incomingExt = ".new"     // being written by this process, else left over
	depositExt  = ".copy"    // being written by another
	refusedExt  = ".refused" // see the log
)

// startChores starts what the store does by itself beside syncing; Close waits for it.
func (s *Store) startChores(opt Options) {
	ctx, stop := context.WithCancel(context.Background())
	s.work.Go(func() {
		<-s.closing
		stop()
	})
	s.discardIncoming() // before there are new ones
	s.work.Go(func() { s.keepRestoring(ctx) })
	if opt.Scrub.Every > 0 {
		s.scrub = newScrubber(s, opt.Scrub)
		s.work.Go(func() { s.scrub.run(ctx) })
	}
}

func (s *Store) keepRestoring(ctx context.Context) {
	tick := time.NewTicker(restoreEvery)
	defer tick.Stop()
	for {
		s.restoreAll(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// discardIncoming deletes what a crash has left of files that were being written.
func (s *Store) discardIncoming() {
	for _, v := range s.volumes {
		dir := filepath.Join(v.dir, restoreDir)
		names, _ := readNames(dir) // restoreFrom tells why not
		for _, name := range names {
			if filepath.Ext(name) == incomingExt {
				s.discard(filepath.Join(dir, name))
			}
		}
	}
}

// incomingPath returns a new path for a file of a segment that comes to the volume with the folder dir.
func incomingPath(dir string, id branchline.SegmentID) string {
	return filepath.Join(dir, restoreDir, id.String()+"."+rand.Text()+incomingExt)
}

// restoreAll takes in what lies in the folders restore/.
func (s *Store) restoreAll(ctx context.Context) {
	for _, v := range s.volumes {
		if v.present() {
			s.restoreFrom(ctx, filepath.Join(v.dir, restoreDir))
		}
	}
}

func (s *Store) restoreFrom(ctx context.Context, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil { // it must be the store's own
		s.log.Warn("no directory for restored segments", "cause", err)
	}
	names, err := readNames(dir)
	if err != nil {
		s.log.Warn("directory of restored segments is not readable", "cause", err)
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".mp4" })
	for _, name := range names[:min(len(names), maxRestored)] {
		if ctx.Err() != nil {
			return
		}
		path := filepath.Join(dir, name)
		err := s.accept(ctx, path, branchline.SegmentID{})
		if err == nil || errors.Is(err, errHeld) || ctx.Err() != nil {
			continue
		}
		s.log.Error("segment is not restored", "path", path, "cause", err)
		if isDamage(err) || errors.Is(err, branchline.ErrDenied) { // for ever
			_ = s.fs.Rename(path, strings.TrimSuffix(path, ".mp4")+refusedExt) // else it is refused again
		}
	}
}

// Lost lists the segments that are in quarantine because the disk failed or they failed to be verified, and
// that have not been put back: at most maxQuarantined. Where the index has forgotten of which stream and
// time one is, only its ID is set. Whoever deletes a file from quarantine gives it up.
func (s *Store) Lost() ([]branchline.Removal, error) {
	names, err := s.quarantined()
	if err != nil {
		return nil, fmt.Errorf("list lost segments: %w", err)
	}
	var lost []branchline.Removal
	err = s.ix.View(func(tx *index.Tx) error {
		at := make(map[branchline.SegmentID]int)
		for _, name := range names {
			head, _, _ := strings.Cut(name, ".")
			id, err := branchline.ParseSegmentID(head)
			if err != nil {
				continue
			}
			if _, _, err := find(tx, id); err == nil { // put back, or on its way
				continue
			}
			if _, ok := at[id]; !ok {
				at[id] = len(lost)
				lost = append(lost, branchline.Removal{ID: id})
			}
		}
		if len(lost) == 0 {
			return nil
		}
		return describeRemovals(tx, at, lost)
	})
	if err != nil {
		return nil, fmt.Errorf("list lost segments: %w", err)
	}
	return slices.DeleteFunc(lost, func(r branchline.Removal) bool {
		return r.Cause != "" && r.Cause != branchline.CauseDiskFailed && r.Cause != branchline.CauseFailed
	}), nil
}

// describeRemovals fills in what the feed still says of the removals, of which at has the places; the newest
// of a segment counts.
func describeRemovals(tx *index.Tx, at map[branchline.SegmentID]int, lost []branchline.Removal) error {
	for k, v := range tx.Scan([]byte("X"), nil) {
		var id branchline.SegmentID
		copy(id[:], v)
		i, ok := at[id]
		if !ok {
			continue
		}
		b, err := tx.Get(keyChange(binary.BigEndian.Uint64(k[1:])))
		if errors.Is(err, branchline.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		ch, err := readChange(tx, b)
		if err != nil {
			return err
		}
		if ch.Removed != nil {
			lost[i] = *ch.Removed
		}
	}
	return nil
}

// Quarantined returns how often a segment went to quarantine since the store was opened: whoever follows
// what is lost looks again when it changes.
func (s *Store) Quarantined() uint64 { return s.moved.Load() }

// Segment returns what the store knows of a segment, without its fragments. It wraps
// [branchline.ErrNotFound], or [branchline.ErrGone] for a removed one.
func (s *Store) Segment(id branchline.SegmentID) (branchline.Segment, error) {
	seg, err := s.lookup(id)
	if err != nil {
		return seg, fmt.Errorf("look up segment: %w", err)
	}
	return seg, nil
}

// Restore puts back a whole segment, of which body is the file, and announces it as sealed. It is verified
// before it counts: every fragment, the footer, that it is the segment asked for ([branchline.ErrMismatch]),
// that this node has signed it and that it is lost here ([branchline.ErrDenied]); and durable on return.
// Nothing happens if it is held. It wraps [branchline.ErrBusy] for one that is being written here and the
// errors of Begin for a full disk. A store that encrypts has what comes in plain in restore/ until it is
// verified, as only its footer tells what the fragments are, and then writes it anew.
func (s *Store) Restore(ctx context.Context, id branchline.SegmentID, body io.Reader) error {
	v, err := s.volumeFor("")
	if err != nil {
		return fmt.Errorf("restore segment %v: %w", id, err)
	}
	path := incomingPath(v.dir, id)
	err = s.receive(ctx, path, body)
	if err == nil {
		err = s.accept(ctx, path, id)
	}
	if err != nil && !errors.Is(err, errHeld) {
		s.discard(path)
		return fmt.Errorf("restore segment %v: %w", id, err)
	}
	return nil
}

// accept verifies the file at path, of the segment wanted if that is not zero, and puts it to its place. It
// returns errHeld, and removes the file, if there is nothing to do.
func (s *Store) accept(ctx context.Context, path string, wanted branchline.SegmentID) error {
	seg, err := s.examine(ctx, path, wanted)
	from := path
	if err == nil {
		from, err = s.encrypted(ctx, path, seg.ID)
	}
	if err == nil {
		err = s.putBack(from, seg)
	}
	if from != path && err != nil {
		s.discard(from)
	}
	if from != path && err == nil || errors.Is(err, errHeld) {
		s.discard(path)
	}
	if err != nil {
		return err
	}
	s.log.Info("segment restored", "segment", seg.ID, "stream", seg.Stream, "hash", seg.Hash)
	return nil
}

// encrypted returns the path of the file as it is to stand in the store: a new file beside the one at path
// if that is in plain and the store encrypts, else path.
func (s *Store) encrypted(ctx context.Context, path string, id branchline.SegmentID) (string, error) {
	as := s.newCipher(id)
	if as == nil {
		return path, nil
	}
	r, err := os.Open(path)
	if err != nil {
		return path, err
	}
	defer r.Close()
	e, err := verifiedEnding(r)
	if err != nil || e.key != nil {
		return path, err
	}
	v := s.volumeOf(path)
	fresh := incomingPath(v.dir, id)
	w, err := s.fs.Open(fresh, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return path, err
	}
	err = writeEncrypted(io.NewOffsetWriter(w, 0), content{file: r, end: &e}, as, func() error {
		return errors.Join(ctx.Err(), s.room(v))
	})
	return fresh, errors.Join(err, w.Close())
}

// receive writes body to the file at path, within the limits of a segment and of the disk.
func (s *Store) receive(ctx context.Context, path string, body io.Reader) error {
	if err := s.fs.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := s.fs.Open(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return err
	}
	piece := make([]byte, 1<<20)
	for at := int64(0); err == nil; {
		var n int
		n, err = io.ReadFull(body, piece)
		if _, e := f.WriteAt(piece[:n], at); e != nil && n > 0 {
			err = e
		}
		at += int64(n)
		switch {
		case err != nil:
		case ctx.Err() != nil:
			err = ctx.Err()
		case at > maxRestoredSize:
			err = fmt.Errorf("more than %d bytes: %w", int64(maxRestoredSize), branchline.ErrTooLarge)
		default:
			err = s.room(s.volumeOf(path))
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

var errHeld = errors.New("held already")

// examine verifies a file that is to be taken in, of the segment wanted if that is not zero: one of the drop
// folder is whatever somebody has put there. It returns the segment under this node's name of the stream, and
// errHeld if there is nothing to do.
func (s *Store) examine(ctx context.Context, path string, wanted branchline.SegmentID) (branchline.Segment, error) {
	known := branchline.Segment{}
	f, size, err := s.verifyFile(path, func(int64) error { return ctx.Err() })
	if err != nil {
		return known, err
	}
	asked := wanted != branchline.SegmentID{}
	if asked && f.ID != wanted {
		return known, fmt.Errorf("file is of segment %v: %w", f.ID, branchline.ErrMismatch)
	}
	err = s.lacking(f.ID, f.Hash)
	if errors.Is(err, errHeld) {
		err = s.heldWhole(ctx, f.ID)
	}
	if err != nil {
		return known, err
	}
	stream, err := s.streamOf(f, asked)
	if err != nil {
		return known, err
	}
	if s.signer != nil && !bytes.Equal(f.PublicKey, s.signer.Public().(ed25519.PublicKey)) {
		return known, fmt.Errorf("signed with key %x, which is not this node's: %w", f.PublicKey, branchline.ErrDenied)
	}
	if err := s.trust(stream, f.PublicKey); err != nil {
		return known, err
	}
	seg := f.Segment(stream, size)
	seg.Fragments = nil
	return seg, nil
}

// lacking returns nil if a segment can be put back, errHeld if it is there with that hash, and else what is
// there instead.
func (s *Store) lacking(id branchline.SegmentID, hash branchline.Hash) error {
	known, err := s.lookup(id)
	switch {
	case err == nil && known.Sealed && known.Hash == hash:
		return errHeld
	case err == nil && known.Sealed:
		return fmt.Errorf("held is %v, restored is %v: %w", known.Hash, hash, branchline.ErrMismatch)
	case err == nil || s.partial(id) != nil:
		return fmt.Errorf("segment %v is being written: %w", id, branchline.ErrBusy)
	case !errors.Is(err, branchline.ErrNotFound) && !errors.Is(err, branchline.ErrGone):
		return err
	}
	return nil
}

// heldWhole returns errHeld if a sealed segment is whole, and nil if its file is damaged; that is in quarantine
// then, and the copy that somebody brings takes its place.
func (s *Store) heldWhole(ctx context.Context, id branchline.SegmentID) error {
	seg, err := s.lookup(id)
	if err == nil {
		err = s.verifySealed(seg, func(int64) error { return ctx.Err() })
	}
	switch {
	case err == nil:
		s.log.Info("copy is not needed: the segment is held and whole", "segment", id)
		return errHeld
	case isDamage(err):
		return s.quarantine(id, branchline.CauseDiskFailed, err.Error())
	}
	return err
}

// streamOf returns what this node calls the stream of a footer: at the origin as it says; a replica knows it
// if it has lost the segment, and with lost the origin has to have, too.
func (s *Store) streamOf(f Footer, lost bool) (branchline.StreamID, error) {
	if s.signer != nil && !lost {
		return f.Stream, nil
	}
	all, err := s.Lost()
	if err != nil {
		return "", err
	}
	for _, r := range all {
		if r.ID == f.ID && s.signer != nil { // of which the index may have forgotten the stream
			return f.Stream, nil
		}
		if r.ID == f.ID && (r.Stream == f.Stream || strings.HasSuffix(string(r.Stream), "."+string(f.Stream))) {
			return r.Stream, nil
		}
	}
	return "", fmt.Errorf("segment %v of %s was not lost here: %w", f.ID, f.Stream, branchline.ErrDenied)
}

// putBack moves a verified file to its place, durably, and announces it. A crash on the way leaves it in
// one of the two places, and it is taken in at the next start.
func (s *Store) putBack(path string, seg branchline.Segment) error {
	f, err := s.fs.Open(path, os.O_RDONLY) // it may be of another user
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	defer s.seize(seg.ID)()
	if err := s.lacking(seg.ID, seg.Hash); err != nil { // it took long to get here
		return err
	}
	final := Path(s.volumeOf(path).dir, seg.Stream, seg.ID, seg.Span.Start)
	day := filepath.Dir(final)
	if err := s.fs.MkdirAll(day); err != nil {
		return err
	}
	if err := s.fs.Rename(path, final); err != nil {
		return err
	}
	s.replaced(seg.ID)
	for _, dir := range []string{day, filepath.Dir(day), filepath.Dir(filepath.Dir(day)), filepath.Dir(path)} {
		if err := s.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return s.commit(func(l *ledger) error { return errors.Join(l.segment(seg), s.noteSize(l, seg)) })
}

// Deposit puts a copy of the segment file at path into the store in dir, which takes it in within a minute if
// it is open anywhere, and otherwise when it is opened next. The copy is verified first, but that this store
// may have it is decided by the store. It returns what was found in the file, and wraps
// [branchline.ErrInvalid] or [branchline.ErrMismatch] for one that is damaged. A copy in plain stays so until
// the store takes it in.
func Deposit(dir, path string) (Report, error) {
	if _, err := os.Stat(filepath.Join(dir, segmentsDir)); err != nil {
		return Report{}, fmt.Errorf("restore segment: %s is no store: %w", dir, err)
	}
	report, err := Check(path)
	if err != nil {
		return report, fmt.Errorf("restore segment: %w", err)
	}
	if len(report.Problems) > 0 || !report.Sealed { // one that is encrypted the store verifies, which has the key
		return report, fmt.Errorf("restore segment %s: damaged or not sealed: %w", path, branchline.ErrInvalid)
	}
	r, err := os.Open(path)
	if err != nil {
		return report, fmt.Errorf("restore segment: %w", err)
	}
	defer r.Close()
	vols := volumeDirs(dir) // the newest volume, or the store itself where there are none
	vol := &volume{dir: vols[len(vols)-1], home: len(vols) == 1}
	s := &Store{dir: dir, fs: disk{}, free: index.FreeSpace, volumes: []*volume{vol},
		retention: newRetention(retain.Rules{})}
	to := filepath.Join(vol.dir, restoreDir, report.Segment)
	from := to + "." + rand.Text() + depositExt
	if err := s.receive(context.Background(), from, r); err != nil {
		return report, errors.Join(fmt.Errorf("restore segment %s: %w", path, err), os.Remove(from))
	}
	if err := os.Rename(from, to+".mp4"); err != nil {
		return report, fmt.Errorf("restore segment: %w", err)
	}
	return report, nil
}
