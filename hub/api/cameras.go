package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/policy"
)

// maxTimeline bounds the time of one time line: the longest month.
const maxTimeline = 31 * 24 * time.Hour

func (s strictServer) ListCameras(context.Context, ListCamerasRequestObject) (ListCamerasResponseObject, error) {
	cameras, err := s.Catalog.Cameras()
	if err != nil {
		return nil, err
	}
	list := ListCameras200JSONResponse{Cameras: []Camera{}}
	for _, c := range cameras {
		camera := Camera{
			Id: string(c.ID), Site: string(c.ID.Branch()), Name: c.Name, Added: stamp(c.Added), Removed: c.Removed,
			Streams: []Stream{},
		}
		for _, stream := range c.Streams {
			told, err := s.describeStream(stream)
			if err != nil {
				return nil, err
			}
			camera.Streams = append(camera.Streams, told)
		}
		list.Cameras = append(list.Cameras, camera)
	}
	return list, nil
}

func (s strictServer) describeStream(stream branchline.Stream) (Stream, error) {
	doing, cause, err := s.Catalog.Recording(stream.ID)
	if err != nil {
		return Stream{}, err
	}
	return Stream{
		Id: string(stream.ID), Label: stream.ID.Label(), Codecs: stream.Codecs,
		Width: stream.Width, Height: stream.Height,
		Recording: Recording(doing), Cause: optionalText(cause),
		Policy: Policy(policy.For(s.Jobs.Policies(), stream.ID).Kind),
	}, nil
}

// knownStream returns the stream's name if there is such a stream; see the table of errors if not.
func (a *API) knownStream(name string) (branchline.StreamID, error) {
	stream := branchline.StreamID(name)
	if err := stream.Check(); err != nil {
		return "", err
	}
	camera, err := a.Catalog.Camera(stream.Camera())
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(camera.Streams, func(s branchline.Stream) bool { return s.ID == stream }) {
		return "", fmt.Errorf("find stream %s: %w", stream, branchline.ErrNotFound)
	}
	return stream, nil
}

func (a *API) knownCamera(name string) (branchline.Camera, error) {
	id := branchline.CameraID(name)
	if err := id.Check(); err != nil {
		return branchline.Camera{}, err
	}
	return a.Catalog.Camera(id)
}

func (s strictServer) GetTimeline(
	_ context.Context, req GetTimelineRequestObject,
) (GetTimelineResponseObject, error) {
	span := branchline.TimeRange{Start: stamp(req.Params.From), End: stamp(req.Params.To)}
	if err := checkSpan(span); err != nil {
		return nil, err
	}
	if span.Duration() > maxTimeline {
		return nil, fmt.Errorf("time line of %v, at most %v: %w", span.Duration(), maxTimeline, branchline.ErrTooLarge)
	}
	camera, err := s.knownCamera(req.Camera)
	if err != nil {
		return nil, err
	}
	answer := GetTimeline200JSONResponse{
		Camera: req.Camera, From: span.Start, To: span.End, Streams: []StreamTimeline{},
	}
	var lines [][]catalog.Span
	for _, stream := range camera.Streams {
		line, err := s.Hub.Timeline(stream.ID, span)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
		answer.Streams = append(answer.Streams, StreamTimeline{Stream: string(stream.ID), Spans: spans(line)})
	}
	answer.Spans = spans(catalog.Best(lines...))
	return answer, nil
}

func spans(line []catalog.Span) []Span {
	told := make([]Span, 0, len(line))
	for _, s := range line {
		span := Span{
			Start: stamp(s.Start), End: stamp(s.End), State: SpanState(s.State),
			Reason: optionalText(s.Reason), Cause: optionalText(s.Cause),
		}
		if s.State == catalog.Coming {
			span.Share = &s.Share
		}
		told = append(told, span)
	}
	return told
}
