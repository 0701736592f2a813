package segstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/branchline-video/branchline"
)

// maxLog bounds the journal and a sidecar, in bytes: half a million gaps, or many times the largest
// fragment table.
const maxLog = 64 << 20

// recordHead is the length in bytes of what stands before a record.
const recordHead = 8

// recordLog is an append-only file of records, each behind its length and CRC-32C in four bytes each.
// It is not safe for concurrent use.
type recordLog struct {
	f      file
	size   int64
	failed error // a failed sync: never trusted again
}

// openLog opens or creates the log and returns what it holds. A torn or damaged end is cut off.
func openLog(fsys files, path string) (*recordLog, [][]byte, error) {
	records, size, err := readLog(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	f, err := fsys.Open(path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("cut log: %w", err)
	}
	return &recordLog{f: f, size: size}, records, nil
}

// readLog returns the whole records of a log and their length in bytes.
func readLog(path string) ([][]byte, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read log: %w", err)
	}
	if info.Size() > maxLog {
		return nil, 0, fmt.Errorf("read log of %d bytes: %w", info.Size(), branchline.ErrTooLarge)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read log: %w", err)
	}
	records, rest := splitLog(data)
	return records, int64(len(data) - rest), nil
}

// splitLog returns the whole records at the start of data and how many bytes follow them.
func splitLog(data []byte) (records [][]byte, rest int) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for len(data) > 8 {
		n := int64(binary.BigEndian.Uint32(data))
		if n == 0 || n > int64(len(data))-8 {
			break
		}
		record := data[8 : 8+n]
		if crc32.Checksum(record, table) != binary.BigEndian.Uint32(data[4:]) {
			break
		}
		records, data = append(records, record), data[8+n:]
	}
	return records, len(data)
}

// append writes records without syncing. After an error the log is as before.
func (l *recordLog) append(records ...[]byte) error {
	var all []byte
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, r := range records {
		all = binary.BigEndian.AppendUint32(all, uint32(len(r)))
		all = binary.BigEndian.AppendUint32(all, crc32.Checksum(r, table))
		all = append(all, r...)
	}
	if l.failed != nil {
		return l.failed
	}
	if l.size+int64(len(all)) > maxLog {
		return fmt.Errorf("append to log: %w", branchline.ErrTooLarge)
	}
	if _, err := l.f.WriteAt(all, l.size); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	l.size += int64(len(all))
	return nil
}

func (l *recordLog) sync() error {
	if l.failed != nil {
		return l.failed
	}
	if err := l.f.Sync(); err != nil {
		l.failed = fmt.Errorf("sync log: %w", err)
	}
	return l.failed
}

func (l *recordLog) close() error { return l.f.Close() }
