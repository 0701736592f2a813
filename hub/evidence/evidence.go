package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

// Options are what the locks need. DB and Store stay the caller's.
type Options struct {
	DB    *index.DB
	Store branchline.Control // the hub's own recordings, under the hub's names
	// Known returns an error wrapping [branchline.ErrNotFound] for a stream that no site has told of.
	Known  func(branchline.StreamID) error
	Clock  clock.Clock
	Logger *slog.Logger
	// Revoked, if set, tells whether a site is never coming back.
	Revoked func(branchline.SiteID) (bool, error)
	// Changed, if set, is told of the streams of a lock that is new or stands otherwise. It is called without
	// locks held and must return at once.
	Changed func(Lock)
}

// Locks keeps the locks and tells the sites of them. Its methods may be called concurrently.
type Locks struct {
	opt Options

	mu    sync.Mutex
	locks map[string]*Lock
	sites map[branchline.SiteID]*site
}

// site is guarded by the mutex of its Locks, but for wake.
type site struct {
	wake   chan struct{} // holds a token when there may be something to tell
	linked bool
}

// Open returns the locks that are kept in opt.DB, after bringing opt.Store in line with them.
func Open(opt Options) (*Locks, error) {
	opt.Logger = cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	if opt.Changed == nil {
		opt.Changed = func(Lock) {}
	}
	if opt.Revoked == nil {
		opt.Revoked = func(branchline.SiteID) (bool, error) { return false, nil }
	}
	k := &Locks{opt: opt, locks: make(map[string]*Lock), sites: make(map[branchline.SiteID]*site)}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("open evidence locks: %w", err)
	}
	if err := k.reconcile(context.Background()); err != nil {
		return nil, fmt.Errorf("open evidence locks: %w", err)
	}
	return k, nil
}

const tableLock = "evidence/lock/" // identifier: Lock

func (k *Locks) load() error {
	return k.opt.DB.View(func(tx *index.Tx) error {
		for key, value := range tx.Scan([]byte(tableLock), nil) {
			l := new(Lock)
			if err := json.Unmarshal(value, l); err != nil {
				return fmt.Errorf("parse %q: %w", key, err)
			}
			k.locks[l.ID] = l
		}
		return nil
	})
}

// reconcile makes the hub's store have the locks that are to be there, and the locks know of those that it
// has from a database that was lost.
func (k *Locks) reconcile(ctx context.Context) error {
	there, err := k.opt.Store.Locks(ctx)
	if err != nil {
		return err
	}
	if err := k.adopt(there); err != nil {
		return err
	}
	now := k.opt.Clock.Now()
	for _, l := range k.locks {
		for i := range l.Parts {
			has := slices.ContainsFunc(there, func(o branchline.Lock) bool { return o.ID == l.partID(i) })
			switch {
			case l.off(now) && has:
				err = k.opt.Store.Unlock(ctx, l.partID(i))
			case !l.off(now) && !has:
				err = k.opt.Store.Lock(ctx, l.lock(i))
			}
			if err != nil {
				return err
			}
			l.Parts[i].Here = !l.off(now)
		}
	}
	return k.forget()
}

// adopt takes in the store's locks of which the database does not know.
func (k *Locks) adopt(there []branchline.Lock) error {
	var found []*Lock
	for _, o := range there {
		id, number := lockOf(o.ID)
		if id == "" || k.locks[id] != nil && !slices.Contains(found, k.locks[id]) {
			continue
		}
		l := k.locks[id]
		if l == nil {
			l = &Lock{ID: id, Created: o.Created, Order: Order{Span: o.Span, Until: o.Until, By: o.By, Reason: o.Reason}}
			k.locks[id], found = l, append(found, l)
		}
		l.Streams = append(l.Streams, o.Stream)
		l.Parts = append(l.Parts, Part{Stream: o.Stream, Number: number, Edge: Pending})
	}
	for _, l := range found {
		k.opt.Logger.Warn("evidence lock is known from the store alone", "lock", l.ID, "streams", l.Streams)
		if err := k.save(l.ID); err != nil {
			return err
		}
	}
	return nil
}

// save stores locks as they are in memory when their turn comes, and deletes those that are no longer
// there. Updates of the database take turns, so what is stored last is the newest, whoever saves.
func (k *Locks) save(ids ...string) error {
	err := k.opt.DB.Update(func(tx *index.Tx) error {
		for _, id := range ids {
			key := []byte(tableLock + id)
			l, err := k.Lock(id)
			if errors.Is(err, branchline.ErrNotFound) {
				if err := tx.Delete(key); err != nil {
					return err
				}
				continue
			}
			value, err := json.Marshal(l)
			if err != nil {
				return err
			}
			if err := tx.Set(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store evidence lock: %w", err)
	}
	return nil
}

// Locks returns all locks that are kept, the newest first.
func (k *Locks) Locks() []Lock {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Lock, 0, len(k.locks))
	for _, l := range k.locks {
		all = append(all, k.viewLocked(l))
	}
	slices.SortFunc(all, func(a, b Lock) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	return all
}

// Lock returns one lock. It wraps [branchline.ErrNotFound] if there is none with the identifier.
func (k *Locks) Lock(id string) (Lock, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.locks[id]
	if l == nil {
		return Lock{}, fmt.Errorf("look up evidence lock %.64q: %w", id, branchline.ErrNotFound)
	}
	return k.viewLocked(l), nil
}

// CauseDark is the cause of a part of which the site cannot be told now.
const CauseDark = "the site is not linked"

func (k *Locks) viewLocked(l *Lock) Lock {
	view := l.clone()
	for i := range view.Parts {
		if view.Parts[i].Edge == Pending && !k.siteLocked(l.Site()).linked {
			view.Parts[i].Cause = CauseDark
		}
	}
	return view
}

func (k *Locks) siteLocked(id branchline.SiteID) *site {
	s := k.sites[id]
	if s == nil {
		s = &site{wake: make(chan struct{}, 1)}
		k.sites[id] = s
	}
	return s
}

// rouse makes who serves the site look what there is to tell.
func (k *Locks) rouse(id branchline.SiteID) {
	k.mu.Lock()
	wake := k.siteLocked(id).wake
	k.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

// tell tells how a lock stands, if it is still there.
func (k *Locks) tell(id string) {
	if l, err := k.Lock(id); err == nil {
		k.opt.Changed(l)
	}
}
