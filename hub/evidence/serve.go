package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// firstRetry and maxRetry are the pauses before a site that did not answer is told again.
	firstRetry = time.Second
	maxRetry   = time.Minute
	// askAgain is the pause before a site that refused is asked again: its administrator may have changed that.
	askAgain = 10 * time.Minute
	// answerTime bounds the wait for a site's answer.
	answerTime = 20 * time.Second
)

// command is a part of a lock that a site is to be told of.
type command struct {
	id   string
	part int
	lock branchline.Lock // under the site's own names
	off  bool
}

// Serve tells a linked site what it is to lock and to unlock: src is the site's source, with the site's own
// identifiers. It runs until ctx ends and always returns an error. Only one Serve may run for a site.
func (k *Locks) Serve(ctx context.Context, id branchline.SiteID, src branchline.Source) error {
	k.mu.Lock()
	s := k.siteLocked(id)
	s.linked = true
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		s.linked = false
		k.mu.Unlock()
		k.tellSite(id)
	}()
	control, ok := src.(branchline.Control)
	if !ok {
		control = nobody{}
	}
	if err := k.compare(ctx, id, control); err != nil {
		return fmt.Errorf("tell %s of evidence locks: %w", id, err)
	}
	k.tellSite(id)
	for pause := firstRetry; ; {
		err := k.round(ctx, id, control)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errStore):
			return fmt.Errorf("tell %s of evidence locks: %w", id, err)
		case err != nil:
			k.opt.Logger.Warn("evidence lock not told yet", "site", id, "error", err)
		}
		wait := askAgain
		if err != nil {
			wait, pause = pause, min(2*pause, maxRetry)
		} else {
			pause = firstRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-time.After(wait):
			if err == nil {
				k.reopen(id)
			}
		}
	}
}

// errStore means that the hub's own database failed.
var errStore = errors.New("store failed")

// nobody is a site that cannot be controlled.
type nobody struct{ branchline.Control }

var errNoControl = fmt.Errorf("the site takes no evidence locks: %w", branchline.ErrDenied)

func (nobody) Lock(context.Context, branchline.Lock) error           { return errNoControl }
func (nobody) Unlock(context.Context, string) error                  { return errNoControl }
func (nobody) Locks(context.Context) ([]branchline.Lock, error)      { return nil, nil }
func (nobody) Hold(_ context.Context, _ branchline.Hold) (err error) { return errNoControl }

// compare asks the site which locks it has. Of those that it should have and has not, such as after its
// disk was replaced, it is to be told again, and what it has not need not be taken off.
func (k *Locks) compare(ctx context.Context, id branchline.SiteID, c branchline.Control) error {
	k.reopen(id)
	has, err := listed(ctx, c)
	if err != nil {
		return err
	}
	now := k.opt.Clock.Now()
	var gone []command
	k.mu.Lock()
	for _, l := range k.locks {
		for i := range l.Parts {
			p := &l.Parts[i]
			switch {
			case l.Site() != id || has[l.partID(i)]:
			case l.off(now) && p.Edge != Gone:
				gone = append(gone, command{id: l.ID, part: i, off: true})
			case p.Edge == Placed:
				p.Edge = Pending
			}
		}
	}
	k.mu.Unlock()
	for _, cmd := range gone {
		if err := k.conclude(cmd, nil); err != nil {
			return err
		}
	}
	return nil
}

// listed returns the identifiers of the locks that the site has.
func listed(ctx context.Context, c branchline.Control) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	there, err := c.Locks(ctx)
	if err != nil && !refusal(err) { // one that does not even list them has none
		return nil, err
	}
	has := make(map[string]bool, len(there))
	for _, l := range there {
		has[l.ID] = true
	}
	return has, nil
}

// reopen makes what the site refused pending again.
func (k *Locks) reopen(id branchline.SiteID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.locks {
		for i := range l.Parts {
			if p := &l.Parts[i]; l.Site() == id && p.Edge == Refused {
				p.Edge = Pending // the cause stays until there is an answer
			}
		}
	}
}

// due returns what the site is to be told now, the locks before what is taken off.
func (k *Locks) due(id branchline.SiteID) []command {
	now := k.opt.Clock.Now()
	var on, off []command
	for _, l := range k.Locks() {
		for i, p := range l.Parts {
			c := command{id: l.ID, part: i, lock: l.lock(i), off: l.off(now)}
			c.lock.Stream, _ = p.Stream.Within(id)
			switch {
			case l.Site() != id:
			case !c.off && p.Here && p.Edge == Pending:
				on = append(on, c)
			case c.off && (p.Edge == Pending || p.Edge == Placed):
				off = append(off, c)
			}
		}
	}
	return append(on, off...)
}

// round tells the site all that is due. It returns the error after which it is to be told again.
func (k *Locks) round(ctx context.Context, id branchline.SiteID, c branchline.Control) error {
	for _, cmd := range k.due(id) {
		err := obey(ctx, c, cmd)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if store := k.conclude(cmd, err); store != nil {
			return fmt.Errorf("%w: %w", errStore, store)
		}
		if err != nil && !refusal(err) {
			return err
		}
	}
	return nil
}

func obey(ctx context.Context, c branchline.Control, cmd command) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if !cmd.off {
		return c.Lock(ctx, cmd.lock)
	}
	err := c.Unlock(ctx, cmd.lock.ID)
	if err != nil && refusal(err) {
		if has, failed := listed(ctx, c); failed == nil && !has[cmd.lock.ID] {
			return nil // it never took the lock
		}
	}
	return err
}

// refusal reports whether the site will say the same again.
func refusal(err error) bool {
	return errors.Is(err, branchline.ErrDenied) || errors.Is(err, branchline.ErrInvalid) ||
		errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrTooLarge)
}

// conclude notes the site's answer. A lock that was taken off everywhere is forgotten.
func (k *Locks) conclude(cmd command, err error) error {
	k.change(cmd.id, cmd.part, func(p *Part) {
		p.Cause = ""
		switch {
		case err == nil && cmd.off:
			p.Edge = Gone
		case err == nil:
			p.Edge = Placed
		default:
			p.Cause = err.Error()[:min(len(err.Error()), maxCause)]
			if refusal(err) {
				p.Edge = Refused
			}
		}
	})
	l, gone := k.Lock(cmd.id)
	if gone != nil {
		return nil //nolint:nilerr // nothing is left to be told
	}
	if l.Removed && !cmd.off { // meanwhile: the site may have it by now
		k.change(cmd.id, cmd.part, func(p *Part) { p.Edge = Pending })
	}
	if state, _ := l.Edge(); l.Removed && state == Gone {
		return k.drop(context.Background(), cmd.id)
	}
	if err := k.save(cmd.id); err != nil {
		return err
	}
	k.tell(cmd.id)
	return nil
}

// tellSite tells how all locks of a site stand.
func (k *Locks) tellSite(id branchline.SiteID) {
	for _, l := range k.Locks() {
		if l.Site() == id {
			k.opt.Changed(l)
		}
	}
}
