package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/budget"
)

// tellAgain is the pause before a site is told once more who watches, when it could not be told.
const tellAgain = 2 * time.Second

// feedKey names a live stream at the hub: whole, or its key frames only, which cannot be recorded.
type feedKey struct {
	stream    branchline.StreamID
	keyFrames bool
}

// watcher is a site that lets in who watches by its uplink's budget.
type watcher interface {
	Watch(ctx context.Context, stream branchline.StreamID, watched bool) error
}

// watcherOf returns the site behind the hub's own wrapping, nil if it has no budget.
func watcherOf(src branchline.Source) watcher {
	if p, ok := src.(*patient); ok {
		src = p.Source
	}
	w, _ := src.(watcher)
	return w
}

// stir makes the feed look who watches it.
func (f *feed) stir() {
	select {
	case f.stirred <- struct{}{}:
	default:
	}
}

// watched reports whether somebody watches the feed, and whether anybody reads it.
func (n *Node) watched(f *feed) (watched, read bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(f.viewers) > 0, f.readers > 0
}

// refuse ends those who watch the feed with the site's reason. Who records goes on.
func (n *Node) refuse(f *feed, why error) {
	n.mu.Lock()
	viewers := f.viewers
	f.viewers = make(map[*context.CancelCauseFunc]bool)
	n.mu.Unlock()
	for cancel := range viewers {
		(*cancel)(why)
	}
}

// subscription returns the context with which to ask the site for the feed.
func subscription(ctx context.Context, key feedKey, watched bool) context.Context {
	if key.keyFrames {
		ctx = federation.WithKeyFrames(ctx)
	}
	if !watched {
		ctx = federation.WithPriority(ctx, federation.PrioritySchedule)
	}
	return ctx
}

// tellWatched tells the site of changes in whether somebody watches the stream, of which it was told at first,
// until ctx ends, and returns whether the site may take it for watched. It ends with late once somebody begins to watch
// and what comes is of a while ago, as whatever is more urgent than a recording went before it: the rest of that is not
// to be waited for.
func (n *Node) tellWatched(ctx context.Context, src branchline.Source, key feedKey, f *feed, told bool) (
	stillTold, late bool,
) {
	site, local := watcherOf(src), key.stream
	local, _ = local.Within(key.stream.Site())
	unsure := false
	for {
		var again <-chan time.Time
		watched, _ := n.watched(f)
		if site != nil && watched != told && !key.keyFrames {
			err := outward(key.stream.Site(), site.Watch(ctx, local, watched))
			switch {
			case err == nil:
				told, unsure = watched, false
				if still, _ := n.watched(f); watched && still && f.behind(n.cfg.Clock.Now()) {
					n.log.Debug("live stream asked for anew, as it is late", "stream", key.stream)
					return true, true
				}
			case watched && isRefusal(err):
				n.refuse(f, err)
			case ctx.Err() != nil:
				unsure = true
			default:
				unsure = true
				n.log.Warn("a site was not told who watches", "stream", key.stream, "error", err)
				again = time.After(tellAgain)
			}
		}
		select {
		case <-f.stirred:
		case <-again:
		case <-ctx.Done():
			return told || unsure, false
		}
	}
}

func isRefusal(err error) bool {
	var r *budget.Refusal
	return errors.As(err, &r)
}

// outward returns a refusal of a site with the hub's names of its streams; other errors as they are.
func outward(site branchline.SiteID, err error) error {
	var r *budget.Refusal
	if !errors.As(err, &r) {
		return err
	}
	named := *r
	named.Instead = nil
	for _, o := range r.Instead {
		o.Stream = o.Stream.Under(site)
		named.Instead = append(named.Instead, o)
	}
	return fmt.Errorf("site %s: %w", site, &named)
}

// keyFramesOf leaves of a whole stream's items what those get who asked for key frames only.
func keyFramesOf(i branchline.Item) bool {
	return i.Frame == nil && i.Fragment == nil && i.Seal == nil || i.Frame != nil && i.Frame.Key
}

// playback makes a fetch for somebody who watches what comes one of the site, under its own name of the stream.
func playback(ctx context.Context, stream branchline.StreamID) context.Context {
	local, ok := stream.Within(stream.Site())
	if !ok || federation.Playback(ctx) == "" {
		return ctx
	}
	return federation.WithPlayback(ctx, local)
}

// Uplink asks a linked site how its uplink stands. It wraps [branchline.ErrUnavailable] while the site is dark and
// [branchline.ErrNotFound] if that has no budget or is behind another hub.
func (n *Node) Uplink(ctx context.Context, site branchline.SiteID) (federation.UplinkBudget, error) {
	if len(site.Way()) > 1 {
		return federation.UplinkBudget{}, fmt.Errorf("the budget of %s is known to its own hub: %w", site,
			branchline.ErrNotFound)
	}
	src, _ := n.link(site)
	if src == nil {
		return federation.UplinkBudget{}, fmt.Errorf("site %s is not linked: %w", site, branchline.ErrUnavailable)
	}
	if p, ok := src.(*patient); ok {
		src = p.Source
	}
	asked, can := src.(interface {
		Uplink(ctx context.Context) (federation.UplinkBudget, error)
	})
	if !can {
		return federation.UplinkBudget{}, fmt.Errorf("site %s has no budget: %w", site, branchline.ErrNotFound)
	}
	return asked.Uplink(ctx)
}
