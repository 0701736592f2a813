package segstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Bit rot is found by whoever looks: the scrub reads every sealed file anew, in rounds, in the order in
// which they were sealed here. A round ends with the segments that were there when it began, so that it
// ends however much is recorded meanwhile, and a change of the feed is where it goes on after a restart.

// The limits of a scrub.
const (
	DefaultScrubEvery = 30 * 24 * time.Hour
	// MinScrubEvery keeps a small store from being read all the time.
	MinScrubEvery = time.Hour
	// DefaultScrubRate is a tenth of what a slow disk reads, in bytes a second: 10 TB take six days.
	DefaultScrubRate = 20 << 20
	// MinScrubRate is the floor of the rate: a small store is done with soon, and a disk is not woken for
	// a few bytes all day long.
	MinScrubRate = 1 << 20
	// scrubStart is the pause between opening and the first reading: a node that starts has better to do.
	scrubStart = 10 * time.Second
	// scrubSave is how often the place of a round is kept: a crash makes it read so much again.
	scrubSave = time.Minute
	// scrubBatch bounds the segments that are looked up in one view of the index.
	scrubBatch = 64
	// scrubLook bounds the sleep between two rounds, as the clock may be set meanwhile.
	scrubLook = time.Hour
	// maxScrubWarns bounds the lines about files that cannot be read, in a round: a volume may be away.
	maxScrubWarns = 10
)

// Scrub says how a store's sealed files are read again in the background. The zero value: not at all.
type Scrub struct {
	// Every is the time in which every file is read, if Rate allows; at least MinScrubEvery.
	Every time.Duration
	// Rate is the most bytes a second that are read, at least MinScrubRate; zero: DefaultScrubRate.
	Rate int64
}

// ScrubStats is how a store's scrub stands. The counts are since the store was opened.
type ScrubStats struct {
	Began     time.Time // of the present round, or of the last one
	Ended     time.Time // of the last whole round; zero before the first has ended
	Progress  float64   // of the present round, from 0 to 1; 1 between rounds
	Bytes     int64     // read
	Segments  int64     // read to their end
	Rotten    int64     // of those, found to be damaged
	Unread    int64     // that cannot be read now, as when their volume is not there
	Untrusted int64     // whole, but signed by a key that Options.Trust refuses; they stay
}

var errUntrusted = errors.New("signed by a key that is not trusted")

// scrubRound is where a round stands, as it is kept in the index.
type scrubRound struct {
	began, ended time.Time // ended: of the round before
	until        uint64    // the newest change when it began; zero between rounds
	at           uint64    // the change up to which all is read
	total, read  int64     // bytes
}

func (r *scrubRound) move(c *codec) {
	c.instant(&r.began)
	c.instant(&r.ended)
	number(c, &r.until, 8)
	number(c, &r.at, 8)
	number(c, &r.total, 8)
	number(c, &r.read, 8)
}

func keyScrub() []byte { return []byte("W") }

// scrubber reads a store's files. Its methods are for one goroutine, but stats.
type scrubber struct {
	s     *Store
	plan  Scrub
	pacer *rate.Limiter
	saved time.Time
	warns int // files that cannot be read, of this round

	mu    sync.Mutex
	round scrubRound
	stats ScrubStats
}

func newScrubber(s *Store, plan Scrub) *scrubber {
	if plan.Rate == 0 {
		plan.Rate = DefaultScrubRate
	}
	plan.Rate, plan.Every = max(plan.Rate, MinScrubRate), max(plan.Every, MinScrubEvery)
	return &scrubber{s: s, plan: plan, pacer: rate.NewLimiter(MinScrubRate, MinScrubRate)}
}

// ScrubStats returns how the scrub stands; the zero value if there is none.
func (s *Store) ScrubStats() ScrubStats {
	if s.scrub == nil {
		return ScrubStats{}
	}
	return s.scrub.report()
}

func (c *scrubber) report() ScrubStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Began, st.Ended, st.Progress = c.round.began, c.round.ended, 1
	if c.round.until != 0 {
		st.Progress = min(float64(c.round.read)/float64(max(c.round.total, 1)), 1)
	} else if c.round.ended.IsZero() {
		st.Progress = 0
	}
	return st
}

// run scrubs until ctx ends. Nothing that it meets ends it earlier.
func (c *scrubber) run(ctx context.Context) {
	quietly()
	if err := c.load(); err != nil {
		c.s.log.Error("scrub begins anew", "cause", err)
	}
	for wait := scrubStart; ; wait = c.due() {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if c.due() > 0 {
			continue
		}
		err := c.scrub(ctx)
		if ctx.Err() == nil && err != nil {
			c.s.log.Error("scrub stops for a while", "pause", rotPause, "cause", err)
			timer.Reset(rotPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// quietly makes this goroutine's reading give way to all other, on disks whose scheduler knows of that. The
// goroutine keeps its thread, which ends with it.
func quietly() {
	const ofProcess, idle = 1, 3 << 13 // IOPRIO_WHO_PROCESS with 0 is the calling thread; IOPRIO_CLASS_IDLE
	runtime.LockOSThread()
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ofProcess, 0, idle)
}

// due returns how long to wait for the next round; zero while one is to go on.
func (c *scrubber) due() time.Duration {
	now := c.s.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.round.until != 0 || c.round.began.After(now) { // the clock was ahead
		return 0
	}
	return min(max(c.round.began.Add(c.plan.Every).Sub(now), 0), scrubLook)
}

// scrub begins a round, or goes on with one, to its end.
func (c *scrubber) scrub(ctx context.Context) error {
	if err := c.begin(); err != nil {
		return err
	}
	for {
		c.pace()
		batch, at, err := c.next()
		if err != nil {
			return err
		}
		for _, found := range batch {
			if err := c.one(ctx, found.Segment); err != nil {
				return errors.Join(err, c.save(true))
			}
			c.move(found.seq, found.Size)
			if err := c.save(false); err != nil {
				return err
			}
		}
		c.move(at, 0)
		if len(batch) == 0 {
			return c.end()
		}
	}
}

func (c *scrubber) begin() error {
	total := c.s.Stats().Bytes
	var m meta
	err := c.s.ix.View(func(tx *index.Tx) (err error) {
		m, err = readMeta(tx)
		return err
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.round.until == 0 || c.round.until > m.head {
		c.round = scrubRound{began: c.s.clock.Now().Round(0), ended: c.round.ended, until: max(m.head, 1), total: total}
		c.warns = 0
	}
	c.mu.Unlock()
	return c.save(true)
}

func (c *scrubber) end() error {
	now := c.s.clock.Now().Round(0)
	c.mu.Lock()
	c.round.until, c.round.ended = 0, now
	round, stats := c.round, c.stats
	c.mu.Unlock()
	took := now.Sub(round.began)
	c.s.log.Info("scrub round ended", "bytes", round.read, "took", took, "rotten", stats.Rotten,
		"unread", stats.Unread, "untrusted", stats.Untrusted)
	if took > c.plan.Every {
		c.s.log.Warn("scrub is too slow for what is held", "took", took, "every", c.plan.Every, "rate", c.plan.Rate)
	}
	return c.save(true)
}

// pace sets the rate at which what is left is read in three quarters of the time that there is for a round,
// within the limits.
func (c *scrubber) pace() {
	c.mu.Lock()
	left, end := c.round.total-c.round.read, c.round.began.Add(c.plan.Every/4*3)
	c.mu.Unlock()
	perSecond := float64(c.plan.Rate)
	if in := end.Sub(c.s.clock.Now()).Seconds(); in > 0 {
		perSecond = min(max(float64(left)/in, MinScrubRate), perSecond)
	}
	c.pacer.SetLimit(rate.Limit(perSecond))
}

type sealedAt struct {
	branchline.Segment
	seq uint64
}

// next returns the segments to read next, and the change up to which there is none but them.
func (c *scrubber) next() (batch []sealedAt, at uint64, err error) {
	c.mu.Lock()
	from, until := c.round.at, c.round.until
	c.mu.Unlock()
	err = c.s.ix.View(func(tx *index.Tx) error {
		for k, v := range tx.Scan([]byte("C"), keyChange(from+1)) {
			seq := binary.BigEndian.Uint64(k[1:])
			if seq > until {
				break
			}
			ch, err := readChange(tx, v)
			if err != nil {
				return err
			}
			if ch.Sealed == nil {
				continue
			}
			if batch = append(batch, sealedAt{*ch.Sealed, seq}); len(batch) == scrubBatch {
				until = seq
				break
			}
		}
		return nil
	})
	return batch, until, err
}

func (c *scrubber) move(at uint64, read int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round.at = max(c.round.at, at)
	c.round.read += read
}

// one reads a segment. Its error means that the round must not go on now.
func (c *scrubber) one(ctx context.Context, seg branchline.Segment) error {
	pace := func(n int64) error { return c.take(ctx, n) }
	err := c.s.verifySealed(seg, pace)
	if isDamage(err) { // once more, as memory and cables err, too
		err = c.s.verifySealed(seg, pace)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now, e := c.s.lookup(seg.ID)
	if e != nil || !now.Sealed || now.Hash != seg.Hash {
		return nil //nolint:nilerr // removed meanwhile
	}
	last := false
	if isDamage(err) {
		var aside bool
		if aside, last = c.s.brake.rotten(c.s.clock.Now()); !aside { // readers found so many
			return fmt.Errorf("more than %d damaged files in a row: %w", maxRotInRow, err)
		}
	}
	c.count(err)
	log := c.s.log.With("segment", seg.ID, "stream", seg.Stream)
	switch {
	case err == nil:
		c.s.brake.good()
		return nil
	case errors.Is(err, errUntrusted):
		log.Error("segment is whole, but its key is not trusted; it stays", "cause", err)
		return nil
	case !isDamage(err):
		if c.warns++; c.warns <= maxScrubWarns {
			log.Warn("segment cannot be read now", "cause", err)
		}
		return nil
	}
	log.Error("segment is rotten", "start", seg.Span.Start, "cause", err)
	if e := c.s.quarantine(seg.ID, branchline.CauseDiskFailed, err.Error()); e != nil &&
		!errors.Is(e, branchline.ErrGone) && !errors.Is(e, branchline.ErrNotFound) {
		log.Error("rotten segment stays where it is", "cause", e)
	}
	if last {
		return fmt.Errorf("%d rotten files in a row: %w", maxRotInRow, err)
	}
	return nil
}

// count takes the outcome of reading a segment.
func (c *scrubber) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	damaged, untrusted := isDamage(err), errors.Is(err, errUntrusted)
	switch {
	case err == nil:
	case untrusted:
		c.stats.Untrusted++
	case damaged:
		c.stats.Rotten++
	default:
		c.stats.Unread++
		return
	}
	c.stats.Segments++
}

// take waits until n more bytes may be read.
func (c *scrubber) take(ctx context.Context, n int64) error {
	c.mu.Lock()
	c.stats.Bytes += n
	c.mu.Unlock()
	for n > 0 {
		piece := min(n, int64(c.pacer.Burst()))
		if err := c.pacer.WaitN(ctx, int(piece)); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

// load finds where the last process left the round.
func (c *scrubber) load() error {
	var r scrubRound
	err := c.s.ix.View(func(tx *index.Tx) error {
		b, err := tx.Get(keyScrub())
		if err != nil {
			return err
		}
		return decode("scrub", b, r.move)
	})
	if errors.Is(err, branchline.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.round = r
	c.mu.Unlock()
	return nil
}

// save keeps where the round stands, if it is time or now is set. While the disk is full it does nothing.
func (c *scrubber) save(now bool) error {
	at := c.s.clock.Now()
	if since := at.Sub(c.saved); !now && since >= 0 && since < scrubSave {
		return nil
	}
	c.saved = at
	c.mu.Lock()
	r := c.round
	c.mu.Unlock()
	b, err := encode(r.move)
	if err != nil {
		return err
	}
	err = c.s.ix.Update(func(tx *index.Tx) error { return tx.Set(keyScrub(), b) })
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}
