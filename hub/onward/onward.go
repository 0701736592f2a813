package onward

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	keyHead  = "onward/head"
	tableLog = "onward/log/" // sequence number: branchline.Change

	// MaxKept bounds the changes that are kept: an hour of a thousand streams.
	MaxKept = 100_000
	// dropAtOnce is how many old changes go with each new one, so that what is kept shrinks too.
	dropAtOnce = 4
	// readAtOnce bounds the changes that a reader has in memory.
	readAtOnce = 256
)

// head says what the log holds: the changes from First to before Next. Rows from Kept on are still in the
// database.
type head struct{ Epoch, Kept, First, Next uint64 }

// Options are what a log needs.
type Options struct {
	DB *index.DB // stays the caller's
	// Past says that something may be known already when the log is new.
	Past bool
	// Sum yields the present state as changes; their positions do not count.
	Sum func(ctx context.Context) iter.Seq2[branchline.Change, error]
}

// Log is the feed. Its methods may be called concurrently.
type Log struct {
	opt Options

	mu   sync.Mutex
	news chan struct{} // closed when there may be something new
}

// Open returns the log that is kept in opt.DB. A new one begins with the present state.
func Open(opt Options) (*Log, error) {
	l := &Log{opt: opt, news: make(chan struct{})}
	if _, err := read(opt.DB); !errors.Is(err, branchline.ErrNotFound) {
		return l, err
	}
	first := uint64(1)
	if opt.Past {
		first = 2
	}
	err := opt.DB.Update(func(tx *index.Tx) error {
		return save(tx, head{Epoch: rand.Uint64() | 1, Kept: 1, First: first, Next: first})
	})
	if err != nil {
		return nil, fmt.Errorf("open feed for hubs above: %w", err)
	}
	return l, nil
}

// Lapse notes that from now on changes are made of which no log is told. The next Log begins with the state
// that is then the present one.
func Lapse(db *index.DB) error {
	if _, err := read(db); errors.Is(err, branchline.ErrNotFound) {
		return nil
	}
	if err := db.Update(anew); err != nil {
		return fmt.Errorf("end feed for hubs above: %w", err)
	}
	return nil
}

func read(db *index.DB) (h head, err error) {
	err = db.View(func(tx *index.Tx) (err error) {
		h, err = load(tx)
		return err
	})
	return h, err
}

func load(tx *index.Tx) (h head, err error) {
	value, err := tx.Get([]byte(keyHead))
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(value, &h)
}

func save(tx *index.Tx, h head) error {
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return tx.Set([]byte(keyHead), value)
}

func row(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(tableLog), seq) }

// Head returns the position of the newest change.
func (l *Log) Head() (branchline.Position, error) {
	h, err := read(l.opt.DB)
	if err != nil {
		return branchline.Position{}, fmt.Errorf("read feed for hubs above: %w", err)
	}
	return branchline.Position{Epoch: h.Epoch, Seq: h.Next - 1}, nil
}

// Tell enters a change in the update that makes it. Once that is done the caller calls Wake.
func (l *Log) Tell(tx *index.Tx, c branchline.Change) error {
	h, err := load(tx)
	if err != nil {
		return err
	}
	c.At = branchline.Position{}
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := tx.Set(row(h.Next), value); err != nil {
		return err
	}
	h.Next++
	h.First = max(h.First, h.Next-min(h.Next, MaxKept))
	for range dropAtOnce {
		if h.Kept == h.First {
			break
		}
		if err := tx.Delete(row(h.Kept)); err != nil {
			return err
		}
		h.Kept++
	}
	return save(tx, h)
}

// Anew makes readers begin anew with the present state, as it does not follow from what they were told.
func (l *Log) Anew(tx *index.Tx) error { return anew(tx) }

func anew(tx *index.Tx) error {
	h, err := load(tx)
	if err != nil {
		return err
	}
	h.Epoch = rand.Uint64() | 1
	h.Next = max(h.Next, 2)
	h.First = h.Next
	return save(tx, h)
}

// Wake tells readers that there may be something new.
func (l *Log) Wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.news)
	l.news = make(chan struct{})
}

// Changes yields the feed, as [branchline.Source.Changes] describes it. A reader that is interrupted in the
// middle of a sum gets all of it again.
func (l *Log) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		if err := l.follow(ctx, after, func(c branchline.Change) bool { return yield(c, nil) }); err != nil {
			yield(branchline.Change{}, fmt.Errorf("read feed for hubs above: %w", err))
		}
	}
}

func (l *Log) follow(ctx context.Context, at branchline.Position, each func(branchline.Change) bool) error {
	h, err := read(l.opt.DB)
	if err != nil {
		return err
	}
	if at == (branchline.Position{}) {
		at.Epoch = h.Epoch
		if h.First > 1 {
			at.Seq = h.Next - 1
			if more, err := l.sum(ctx, at, each); !more || err != nil {
				return err
			}
		}
	}
	for {
		l.mu.Lock()
		news := l.news // before reading, so that none is missed
		l.mu.Unlock()
		list, err := l.after(at)
		if err != nil {
			return err
		}
		for _, c := range list {
			if ctx.Err() != nil || !each(c) {
				return nil //nolint:nilerr // the reader has gone, which is no error
			}
			at = c.At
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil
		}
	}
}

// sum hands over the present state. Only the last of it has the position at, after which the log goes on;
// the others have one that is gone. It reports whether to go on.
func (l *Log) sum(ctx context.Context, at branchline.Position, each func(branchline.Change) bool) (bool, error) {
	var last *branchline.Change
	for c, err := range l.opt.Sum(ctx) {
		if err != nil || ctx.Err() != nil {
			return false, err
		}
		if last != nil && !each(*last) {
			return false, nil
		}
		c.At = branchline.Position{Epoch: at.Epoch}
		last = &c
	}
	if last == nil {
		return true, nil
	}
	last.At = at
	return each(*last), nil
}

// after returns the next changes after a position. It wraps [branchline.ErrGone] if they are not kept.
func (l *Log) after(at branchline.Position) ([]branchline.Change, error) {
	var list []branchline.Change
	err := l.opt.DB.View(func(tx *index.Tx) error {
		h, err := load(tx)
		if err != nil {
			return err
		}
		if at.Epoch != h.Epoch || at.Seq+1 < h.First || at.Seq >= h.Next {
			return fmt.Errorf("changes after %v: %w", at, branchline.ErrGone)
		}
		for seq := at.Seq + 1; seq < h.Next && len(list) < readAtOnce; seq++ {
			value, err := tx.Get(row(seq))
			if err != nil {
				return err
			}
			c := branchline.Change{}
			if err := json.Unmarshal(value, &c); err != nil {
				return fmt.Errorf("parse change %d: %w", seq, err)
			}
			c.At = branchline.Position{Epoch: at.Epoch, Seq: seq}
			list = append(list, c)
		}
		return nil
	})
	return list, err
}
