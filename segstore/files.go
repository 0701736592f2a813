package segstore

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline"
)

// files is every change that the store makes on disk outside the index, so that a test can fail or
// stop at any one of them.
type files interface {
	Open(path string, flag int) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	MkdirAll(path string) error
	SyncDir(path string) error
}

// file is an open file as the store uses it.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	io.Closer
}

// disk is the real file system.
type disk struct{}

func (disk) Open(path string, flag int) (file, error) { return os.OpenFile(path, flag, 0o644) }
func (disk) Rename(from, to string) error             { return os.Rename(from, to) }
func (disk) Remove(path string) error                 { return os.Remove(path) }
func (disk) MkdirAll(path string) error               { return os.MkdirAll(path, 0o755) }

func (disk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

const (
	segmentsDir = "segments"
	growingDir  = "growing"
	trashDir    = "trash"
	indexDir    = "index"
	journalFile = "journal"
	lockName    = "lock"
	dayLayout   = "20060102"

	quarantineDir = "quarantine"
)

// Path returns where the store in dir keeps the sealed segment id of stream that starts at start.
func Path(dir string, stream branchline.StreamID, id branchline.SegmentID, start time.Time) string {
	return filepath.Join(dir, segmentsDir, string(stream), start.UTC().Format(dayLayout), id.String()+".mp4")
}

// sealedPath returns where a sealed segment's file is.
func (s *Store) sealedPath(seg branchline.Segment) string {
	return s.find(func(dir string) string { return Path(dir, seg.Stream, seg.ID, seg.Span.Start) })
}

// locateSealed is sealedPath, and reports whether it is sure, as locate does.
func (s *Store) locateSealed(seg branchline.Segment) (path string, sure bool) {
	return s.locate(func(dir string) string { return Path(dir, seg.Stream, seg.ID, seg.Span.Start) })
}

// growingPath returns where a growing or partly held segment's file is.
func (s *Store) growingPath(stream branchline.StreamID, id branchline.SegmentID) string {
	return s.find(func(dir string) string { return growingPath(dir, stream, id) })
}

// File returns where the store in dir, on whichever of its volumes, keeps a listed segment, sealed or
// growing.
func File(dir string, seg branchline.Segment) string {
	for _, vol := range volumeDirs(dir) {
		paths := []string{growingPath(vol, seg.Stream, seg.ID), Path(vol, seg.Stream, seg.ID, seg.Span.Start)}
		if seg.Sealed {
			paths = paths[1:] // else it may have been sealed since it was listed
		}
		for _, path := range paths {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	return Path(dir, seg.Stream, seg.ID, seg.Span.Start)
}

func growingPath(dir string, stream branchline.StreamID, id branchline.SegmentID) string {
	return filepath.Join(dir, growingDir, string(stream), id.String()+".mp4")
}

// sidecarPath returns the sidecar of the growing file at path.
func sidecarPath(path string) string { return path[:len(path)-len(filepath.Ext(path))] + ".part" }
