package federation

import (
	"context"
	"slices"
	"strings"

	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/link"
)

// barsOf tells, while a link goes by nothing but metered uplinks, that bulk is not to be sent: schedule and
// backfill. What was begun waits where it is until another uplink works.
func barsOf(conn link.Conn, uplinks []link.Uplink) func() (barred bool, changed <-chan struct{}) {
	if r, ok := conn.(link.Roving); ok && r.Ways() != nil {
		return func() (bool, <-chan struct{}) {
			changed := r.Moved() // before the look, so that no change is missed
			urgent := false
			for _, w := range r.Ways() {
				if w.Use == link.UseAll {
					return false, changed
				}
				urgent = urgent || w.Use == link.UseUrgent
			}
			return urgent, changed
		}
	}
	metered := slices.ContainsFunc(uplinks, func(l link.Uplink) bool {
		return l.Name == conn.Peer().Uplink && l.Kind == link.UplinkMetered
	})
	if !metered {
		return nil
	}
	return func() (bool, <-chan struct{}) { return true, nil } // a connection that does not move
}

// paced returns the answer's writer within the budget and the bars.
func (s *server) paced(a *answer, u urgency) *paced {
	return &paced{a.ctx, a.out.w, s.budget, u, s.bars}
}

// pass waits until n bytes may be written, as urgent as they are by then.
func (p *paced) pass(n int) error {
	for {
		class, other := p.urgency()
		var barred bool
		var changed <-chan struct{}
		if p.bars != nil && class >= budget.Planned {
			barred, changed = p.bars()
		}
		if !barred {
			if passed, err := p.budget.Wait(p.ctx, class, n, other); passed || err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-other:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
}

// uplinksOf returns the names of the uplinks by which a link goes.
func uplinksOf(conn link.Conn) string {
	r, ok := conn.(link.Roving)
	if !ok || r.Ways() == nil {
		return conn.Peer().Uplink
	}
	var names []string
	for _, w := range r.Ways() {
		if w.Use >= link.UseUrgent {
			names = append(names, w.Name)
		}
	}
	return strings.Join(names, ", ")
}

// roving keeps the state's uplinks up to date while the link is up.
func (u *Uplink) roving(ctx context.Context, hub string, conn link.Conn) error {
	r, ok := conn.(link.Roving)
	for ok && r.Ways() != nil {
		moved := r.Moved()
		state := u.State()
		if by := uplinksOf(conn); by != "" && by != state.Uplink {
			u.cfg.Logger.Info("link goes by", "hub", hub, "uplink", by, "before", state.Uplink)
			state.Uplink = by
			u.set(state, conn)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Ways returns how the uplinks stand of a link that has several and is up; nil otherwise.
func (u *Uplink) Ways() []link.Way {
	u.mu.Lock()
	conn := u.conn
	u.mu.Unlock()
	if r, ok := conn.(link.Roving); ok {
		return r.Ways()
	}
	return nil
}
