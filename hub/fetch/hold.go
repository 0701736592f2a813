package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	// holdEvery is how often it is looked at what a site is to spare. A hold costs the site a write that
	// is synced.
	holdEvery = 5 * time.Second
	// holdsAtOnce bounds the holds that a site is told of in one go.
	holdsAtOnce = 16
	// holdTime bounds the wait for a site's answer.
	holdTime = 20 * time.Second
)

// told is a hold of which a site has been told over the present link.
type told struct {
	hold branchline.Hold
	at   time.Time // zero if it was not
}

// holds begins to tell the site what to spare of what is wanted and not held, where that has changed.
func (l *link) holds(ctx context.Context, now time.Time) error {
	control, ok := l.src.(branchline.Control)
	if !ok || l.holding || now.Before(l.holdNext) {
		return nil
	}
	l.holdNext = now.Add(holdEvery)
	streams, err := l.streams()
	if err != nil {
		return err
	}
	above, err := l.f.holdsAbove(ctx)
	if err != nil {
		return err
	}
	var due []branchline.Hold
	for _, stream := range streams {
		h, err := l.spare(stream, now)
		if err == nil && len(above[stream]) > 0 {
			h, err = l.join(h, above[stream], now)
		}
		if err != nil {
			return err
		}
		last, known := l.told[stream]
		if !known {
			if last, err = l.f.formerHold(stream, now); err != nil {
				return err
			}
			l.told[stream] = last
		}
		if len(due) < holdsAtOnce && policy.Due(h, last.hold, last.at, now) {
			due = append(due, h)
		}
	}
	if len(due) == 0 {
		return nil
	}
	l.holding = true
	l.group.Go(func() error {
		l.held <- l.f.place(ctx, control, l.id, due) // never waits: there is room for the only one
		return nil
	})
	return nil
}

// placed is the result of telling a site.
type placed struct {
	holds []branchline.Hold // that it has taken
	err   error             // of the next one, if not all
}

// spare returns what the site is to spare of a stream.
func (l *link) spare(stream branchline.StreamID, now time.Time) (branchline.Hold, error) {
	p := policy.For(l.f.policies, stream)
	facts, err := l.wanted(stream)
	if err != nil {
		return branchline.Hold{}, err
	}
	wants := policy.Wants(l.f.policies, facts)
	for _, w := range l.f.ordered(stream) {
		known, err := l.f.facts(stream, w.Span)
		if err != nil {
			return branchline.Hold{}, err
		}
		held, err := l.f.held(stream, branchline.Spans{w.Span})
		if err != nil {
			return branchline.Hold{}, err
		}
		facts.Exists, facts.Held = facts.Exists.Union(known.Exists), facts.Held.Union(held)
		facts.Told, wants = known.Told, append(wants, w)
	}
	if p.Kind != policy.Never && facts.Told.IsZero() { // the policy has only just begun, or no feed has told anything
		return branchline.Hold{Stream: stream, Known: policy.Considered(), Until: now}, nil
	}
	return policy.Hold(p, wants, facts, now), nil
}

// ordered returns what jobs that have not ended still want of the stream.
func (f *Fetcher) ordered(stream branchline.StreamID) []policy.Want {
	f.mu.Lock()
	defer f.mu.Unlock()
	var active []*Job
	for _, j := range f.jobs {
		if !j.State.Final() {
			active = append(active, j)
		}
	}
	slices.SortFunc(active, older)
	var wants []policy.Want
	for _, j := range active {
		if p := j.part(stream); p != nil && !p.Complete {
			rest := branchline.TimeRange{Start: p.Through, End: j.Span.End}
			wants = append(wants, policy.Want{Stream: stream, Span: rest, Priority: j.Priority, Reason: j.Reason})
		}
	}
	return wants
}

// place tells the site of the holds, until one is not taken.
func (f *Fetcher) place(ctx context.Context, c branchline.Control, id branchline.SiteID, due []branchline.Hold) placed {
	var done placed
	for _, h := range due {
		done.err = f.placeOne(ctx, c, id, h)
		if errors.Is(done.err, branchline.ErrNotFound) {
			done.err = nil // a stream that is not there needs no sparing
		}
		if done.err != nil {
			break
		}
		done.holds = append(done.holds, h)
	}
	return done
}

func (f *Fetcher) placeOne(ctx context.Context, c branchline.Control, id branchline.SiteID, h branchline.Hold) error {
	// Noted before the site has it and until it has released it, so that what it has is always known here.
	if len(h.Spans) > 0 {
		if err := f.noteHold(h.Stream, h.Until); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	at := h
	at.Stream, _ = h.Stream.Within(id)
	if err := c.Hold(ctx, at); err != nil || len(h.Spans) > 0 {
		return err
	}
	return f.noteHold(h.Stream, time.Time{})
}

// finishHolds takes the result of place. A site that refuses holds is not asked again over this link.
func (l *link) finishHolds(p placed, now time.Time) {
	l.holding = false
	for _, h := range p.holds {
		l.told[h.Stream] = told{h, now}
	}
	switch {
	case p.err == nil:
		l.holdRetry = backoff{}
	case errors.Is(p.err, branchline.ErrDenied), errors.Is(p.err, branchline.ErrInvalid):
		l.holdNext = now.Add(policy.LeaseLife)
		l.f.log.Warn("site holds nothing for this hub; what is wanted from it may be deleted there before it "+
			"could be fetched", "site", l.id, "error", p.err)
	case !errors.Is(p.err, context.Canceled):
		l.holdRetry = l.holdRetry.after(now)
		l.holdNext = l.holdRetry.next
		l.f.log.Warn("hold not placed yet", "site", l.id, "error", p.err)
	}
}

// tableHold has, by stream, until when the last hold that was placed on it lasts.
const tableHold = "fetch/hold/"

// noteHold notes until when a site spares something of the stream; a zero time, that it does not.
func (f *Fetcher) noteHold(stream branchline.StreamID, until time.Time) error {
	err := f.db.Update(func(tx *index.Tx) error {
		key := []byte(tableHold + string(stream))
		if until.IsZero() {
			return tx.Delete(key)
		}
		value, err := json.Marshal(until)
		if err != nil {
			return err
		}
		return tx.Set(key, value)
	})
	if err != nil {
		return fmt.Errorf("store hold: %w", err)
	}
	return nil
}

// formerHold returns the hold that a site may have from an earlier link: one of which nothing is known
// but that it must be released or replaced, or none.
func (f *Fetcher) formerHold(stream branchline.StreamID, now time.Time) (told, error) {
	var until time.Time
	err := f.db.View(func(tx *index.Tx) error {
		value, err := tx.Get([]byte(tableHold + string(stream)))
		if err != nil {
			return err
		}
		return json.Unmarshal(value, &until)
	})
	switch {
	case errors.Is(err, branchline.ErrNotFound), err == nil && !now.Before(until):
		return told{}, nil
	case err != nil:
		return told{}, fmt.Errorf("look up hold of %s: %w", stream, err)
	}
	whole := branchline.TimeRange{End: until}
	return told{branchline.Hold{Stream: stream, Spans: branchline.Spans{whole}, Known: until, Until: until},
		now.Add(-policy.LeaseLife)}, nil
}
