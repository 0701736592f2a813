package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"
)

// eventsEvery is how often at most a receiver is told of changes. What changes more often, such as
// progress, is told in its newest state.
const eventsEvery = 200 * time.Millisecond

// events tells what changes, see openapi.yaml.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	sub := a.Feed.subscribe()
	defer sub.stop()
	a.serveSocket(w, r, func(ctx context.Context, s *socket) error {
		if err := s.text(Event{Type: EventTypeReady}); err != nil {
			return err
		}
		pause := time.NewTicker(eventsEvery)
		defer pause.Stop()
		for {
			changed, err := sub.next(ctx)
			if err != nil {
				return err
			}
			if err := a.tell(s, changed); err != nil {
				return err
			}
			select {
			case <-pause.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

// tell sends one event for each thing that changed, in a fixed order.
func (a *API) tell(s *socket, changed dirty) error {
	var events []Event
	if changed.overflow {
		events = append(events, Event{Type: EventTypeReload})
	}
	for _, id := range slices.Sorted(maps.Keys(changed.sites)) {
		sites, err := a.sites(id)
		if err != nil {
			return err
		}
		for i := range sites {
			events = append(events, Event{Type: EventTypeSite, Site: &sites[i]})
		}
	}
	if changed.cameras {
		events = append(events, Event{Type: EventTypeCameras})
	}
	if changed.locks {
		events = append(events, Event{Type: EventTypeLocks})
	}
	for _, id := range slices.Sorted(maps.Keys(changed.jobs)) {
		told := a.retrieval(changed.jobs[id])
		events = append(events, Event{Type: EventTypeRetrieval, Retrieval: &told})
	}
	for _, id := range slices.Sorted(maps.Keys(changed.timelines)) {
		span, camera := changed.timelines[id], string(id)
		events = append(events, Event{
			Type: EventTypeTimeline, Camera: &camera, From: optional(span.Start), To: optional(span.End),
		})
	}
	for _, e := range events {
		if err := s.text(e); err != nil {
			return err
		}
	}
	return nil
}
