package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	// playPeriod is how long what a user plays of a stream goes into one entry: a player asks for a window
	// every few seconds, and the log is to hold more than what one viewer can ask for.
	playPeriod = time.Minute
	// maxPlaces bounds the ranges in an entry; of more it tells the first start and the last end.
	maxPlaces = 6
	// maxPlays bounds the entries that may still grow: a wall of cameras for each of many users.
	maxPlays = 10_000
)

// playKey tells apart what goes into entries of their own.
type playKey struct {
	user, address string
	stream        branchline.StreamID
}

// play is an entry that may still grow.
type play struct {
	number uint64
	until  time.Time        // when the next entry begins
	told   branchline.Spans // what is recorded for certain
}

// RecordPlay records that the user of the entry plays the span of the stream, in whole minutes and as
// durably as Record. Within a minute of time all that a user plays of a stream from an address is one
// entry, whose object grows; what it tells already costs nothing.
func (s *Store) RecordPlay(e Entry, stream branchline.StreamID, span branchline.TimeRange) error {
	span.Start, span.End = span.Start.UTC().Truncate(time.Minute), span.End.UTC().Add(time.Minute-1).Truncate(time.Minute)
	now, key := s.clock.Now(), playKey{e.User, e.Address, stream}
	p := s.playOf(key, now)
	if p.told.Covers(span) {
		return nil
	}
	var told branchline.Spans
	err := s.db.Update(func(tx *index.Tx) error {
		entry := e
		value, err := tx.Get(auditKey(p.number))
		switch {
		case errors.Is(err, branchline.ErrNotFound):
			entry.At, entry.Action = now, ActionPlay
		case err != nil:
			return err
		default:
			if err := json.Unmarshal(value, &entry); err != nil {
				return err
			}
		}
		told = entry.Played.Union(branchline.NewSpans(span))
		if last := len(told) - 1; last >= maxPlaces {
			told = branchline.NewSpans(branchline.TimeRange{Start: told[0].Start, End: told[last].End})
		}
		entry.Played, entry.Object = told, playObject(stream, told)
		return putAudit(tx, p.number, entry)
	})
	if err != nil {
		return fmt.Errorf("record audit entry: %w", err)
	}
	s.tell(key, p.number, told)
	return nil
}

func playObject(stream branchline.StreamID, spans branchline.Spans) string {
	var b strings.Builder
	b.WriteString(string(stream))
	for _, r := range spans {
		fmt.Fprintf(&b, " %s/%s", r.Start.Format(time.RFC3339), r.End.Format(time.RFC3339))
	}
	return b.String()
}

// playOf returns the entry for the key at this time, a new one if there is none.
func (s *Store) playOf(key playKey, now time.Time) play {
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	p, ok := s.plays[key]
	if ok && now.Before(p.until) && !now.Before(p.until.Add(-playPeriod)) { // not after a clock that was set back
		return p
	}
	if s.plays == nil {
		s.plays = make(map[playKey]play)
	}
	if len(s.plays) >= maxPlays {
		s.forgetPlays(now)
	}
	s.last++
	p = play{number: s.last, until: now.Add(playPeriod)}
	s.plays[key] = p
	return p
}

// forgetPlays makes room: what is over goes, and if nothing is, any. It needs auditMu.
func (s *Store) forgetPlays(now time.Time) {
	for k, p := range s.plays {
		if !now.Before(p.until) {
			delete(s.plays, k)
		}
	}
	for k := range s.plays {
		if len(s.plays) < maxPlays {
			break
		}
		delete(s.plays, k)
	}
}

// tell notes what the entry is certain to hold.
func (s *Store) tell(key playKey, number uint64, told branchline.Spans) {
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	if p, ok := s.plays[key]; ok && p.number == number {
		p.told = p.told.Union(told)
		s.plays[key] = p
	}
}
