package api

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub/access"
)

func (s strictServer) GetLink(_ context.Context, req GetLinkRequestObject) (GetLinkResponseObject, error) {
	l, ok := s.Links.Link(branchline.SiteID(req.Site))
	if !ok {
		return GetLink204Response{}, nil // which is nothing wrong
	}
	return GetLink200JSONResponse(s.figures(l.Stats, l.Carrier, l.Since, l.Addr)), nil
}

func (s strictServer) ListAbove(context.Context, ListAboveRequestObject) (ListAboveResponseObject, error) {
	list := ListAbove200JSONResponse{Hubs: []AboveLink{}}
	for _, a := range s.Links.Above() {
		told := AboveLink{Name: a.Name, Up: a.Up}
		if a.Hub != "" {
			told.Hub = &a.Hub
		}
		if a.Err != nil {
			text := a.Err.Error()
			told.Error = &text
		}
		if a.Up {
			figures := s.figures(a.Stats, a.Carrier, a.Since, a.Hub)
			if a.Uplink != "" {
				figures.Way = &a.Uplink
			}
			told.Link = &figures
		}
		list.Hubs = append(list.Hubs, told)
	}
	return list, nil
}

// figures returns those of a link.
func (a *API) figures(s link.Stats, carrier link.Carrier, since time.Time, peer string) Link {
	const ms = float64(time.Millisecond)
	f := Link{
		At: stamp(a.Clock.Now()), Since: stamp(since), Carrier: LinkCarrier(carrier), Peer: &peer,
		Connections: s.Connections, Handshakes: int64(s.Handshakes),
		RttMs: float64(s.RTT) / ms, LeastRttMs: float64(s.MinRTT) / ms,
		SentBytes: int64(s.Sent), ReceivedBytes: int64(s.Received), LostBytes: int64(s.Lost),
	}
	if s.Bulk {
		f.BulkOverTcp = &s.Bulk
	}
	if mtu := int64(s.MTU); mtu > 0 {
		f.Mtu = &mtu
	}
	if window := int64(s.CongestionWindow); window > 0 {
		f.WindowBytes = &window
	}
	return f
}

func (s strictServer) GetQlog(_ context.Context, req GetQlogRequestObject) (GetQlogResponseObject, error) {
	q, err := s.qlog(req.Site)
	return GetQlog200JSONResponse(q), err
}

func (s strictServer) StartQlog(ctx context.Context, req StartQlogRequestObject) (StartQlogResponseObject, error) {
	length := time.Duration(req.Body.Seconds) * time.Second
	if req.Body.Seconds > int(link.MaxQlogTime/time.Second) {
		return nil, fmt.Errorf("log link for %d seconds: at most %.0f: %w", req.Body.Seconds,
			link.MaxQlogTime.Seconds(), branchline.ErrInvalid)
	}
	what := fmt.Sprintf("%s for %v, %d bytes", req.Site, length, req.Body.Bytes)
	if err := s.record(ctx, access.ActionQlogStart, what); err != nil {
		return nil, err
	}
	if err := s.Links.StartQlog(ctx, branchline.SiteID(req.Site), length, req.Body.Bytes); err != nil {
		return nil, err
	}
	q, err := s.qlog(req.Site)
	return StartQlog200JSONResponse(q), err
}

func (s strictServer) StopQlog(ctx context.Context, req StopQlogRequestObject) (StopQlogResponseObject, error) {
	if err := s.record(ctx, access.ActionQlogStop, req.Site); err != nil {
		return nil, err
	}
	s.Links.StopQlog(branchline.SiteID(req.Site))
	q, err := s.qlog(req.Site)
	return StopQlog200JSONResponse(q), err
}

func (a *API) qlog(site string) (Qlog, error) {
	state, err := a.Links.Qlog(branchline.SiteID(site))
	if err != nil {
		return Qlog{}, err
	}
	q := Qlog{On: state.On, Until: optional(state.Until), Files: append([]string{}, state.Files...)}
	if state.On {
		q.LeftBytes = &state.Left
	}
	if state.Problem != "" {
		q.Problem = &state.Problem
	}
	return q, nil
}
