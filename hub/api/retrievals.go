package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/fetch"
)

func (s strictServer) ListRetrievals(
	context.Context, ListRetrievalsRequestObject,
) (ListRetrievalsResponseObject, error) {
	list := ListRetrievals200JSONResponse{Retrievals: []Retrieval{}}
	for _, job := range s.Jobs.Jobs() {
		list.Retrievals = append(list.Retrievals, s.retrieval(job))
	}
	return list, nil
}

func (s strictServer) GetRetrieval(
	_ context.Context, req GetRetrievalRequestObject,
) (GetRetrievalResponseObject, error) {
	job, err := s.Jobs.Job(req.Retrieval)
	if err != nil {
		return nil, err
	}
	return GetRetrieval200JSONResponse(s.retrieval(job)), nil
}

func (s strictServer) CreateRetrieval(
	ctx context.Context, req CreateRetrievalRequestObject,
) (CreateRetrievalResponseObject, error) {
	order := fetch.Order{
		Span: branchline.TimeRange{Start: stamp(req.Body.From), End: stamp(req.Body.To)},
		By:   callerOf(ctx).User,
	}
	var err error
	if order.Streams, err = s.ordered(req.Body.Camera, req.Body.Streams); err != nil {
		return nil, err
	}
	if err := s.record(ctx, access.ActionRetrievalCreate, footage(order.Streams, order.Span)); err != nil {
		return nil, err
	}
	job, err := s.Jobs.Create(order)
	if err != nil {
		return nil, err
	}
	return CreateRetrieval201JSONResponse(s.retrieval(job)), nil
}

// footage names what an order is about in the audit log.
func footage(streams []branchline.StreamID, span branchline.TimeRange) string {
	return fmt.Sprintf("%s %s/%s", join(streams), span.Start.Format(time.RFC3339Nano), span.End.Format(time.RFC3339Nano))
}

// ordered returns the streams that an order names, itself or by their camera.
func (s strictServer) ordered(camera *string, names *[]string) ([]branchline.StreamID, error) {
	var streams []branchline.StreamID
	switch {
	case (camera == nil) == (names == nil):
		return nil, fmt.Errorf("order names either a camera or streams: %w", branchline.ErrInvalid)
	case camera != nil:
		camera, err := s.knownCamera(*camera)
		if err != nil {
			return nil, err
		}
		for _, stream := range camera.Streams {
			streams = append(streams, stream.ID)
		}
		return streams, nil
	case len(*names) > fetch.MaxStreams:
		return nil, fmt.Errorf("order of %d streams, at most %d: %w",
			len(*names), fetch.MaxStreams, branchline.ErrTooLarge)
	}
	for _, name := range *names {
		stream, err := s.knownStream(name)
		if err != nil {
			return nil, err
		}
		streams = append(streams, stream)
	}
	return streams, nil
}

func join(streams []branchline.StreamID) string {
	texts := make([]string, 0, len(streams))
	for _, s := range streams {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ",")
}

func (s strictServer) CancelRetrieval(
	ctx context.Context, req CancelRetrievalRequestObject,
) (CancelRetrievalResponseObject, error) {
	if err := s.record(ctx, access.ActionRetrievalCancel, req.Retrieval); err != nil {
		return nil, err
	}
	if err := s.Jobs.Cancel(req.Retrieval); err != nil {
		return nil, err
	}
	return CancelRetrieval204Response{}, nil
}

// retrieval translates a job.
func (a *API) retrieval(job fetch.Job) Retrieval {
	told := Retrieval{
		Id: job.ID, User: job.By, Created: stamp(job.Created), Streams: []string{},
		From: stamp(job.Span.Start), To: stamp(job.Span.End),
		State: RetrievalState(job.State), Share: job.Share(), Bytes: job.Brought,
		Ended: optional(job.Ended), Cause: optionalText(job.Cause),
	}
	for _, stream := range job.Streams {
		told.Streams = append(told.Streams, string(stream))
	}
	if job.State == fetch.Retrieving {
		told.Rate = &job.Rate
	}
	if left, known := job.ETA(); known {
		eta := stamp(a.Clock.Now().Add(left))
		told.Eta = &eta
	}
	return told
}
