package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/internal/media"
)

// live sends a stream as it happens, see openapi.yaml.
func (a *API) live(w http.ResponseWriter, r *http.Request) {
	stream, err := a.knownStream(r.PathValue("stream"))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	keyFrames, err := boolean(r, "keyFrames")
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.metrics.viewers.Inc()
	defer a.metrics.viewers.Dec()
	a.serveSocket(w, r, func(ctx context.Context, s *socket) error {
		v := viewer{socket: s, stream: stream}
		if keyFrames {
			ctx = federation.WithKeyFrames(ctx)
		}
		for item, err := range a.Source.Live(ctx, stream) {
			if err != nil {
				return errors.Join(err, v.refused(err))
			}
			if err := v.show(item); err != nil {
				return err
			}
		}
		return branchline.ErrUnavailable
	})
}

// viewer turns the items of a live stream into messages.
type viewer struct {
	*socket
	stream branchline.StreamID
	init   []byte // that the receiver has
	frames *media.FrameFragmenter
}

func (v *viewer) show(item branchline.Item) error {
	if item.Missed > 0 {
		if err := v.text(LiveMessage{Type: LiveMessageTypeMissed, Count: &item.Missed}); err != nil {
			return err
		}
	}
	switch {
	case item.Start != nil:
		return v.start(item.Start)
	case item.Frame != nil && v.frames != nil:
		data, err := v.frames.Marshal(item.Frame)
		if err != nil {
			return err
		}
		return v.binary(data)
	case item.RunEnd != nil:
		cause := string(item.RunEnd.Cause)
		return v.text(LiveMessage{Type: LiveMessageTypeEnd, Cause: &cause})
	}
	return nil
}

// start tells of a segment only if its init part is not the one that the receiver has.
func (v *viewer) start(seg *branchline.SegmentStart) error {
	if bytes.Equal(seg.Init, v.init) {
		return nil
	}
	frames, err := media.NewFrameFragmenter(seg.Init)
	if err != nil {
		return err
	}
	v.frames, v.init = frames, seg.Init
	id := string(v.stream)
	if err := v.text(LiveMessage{Type: LiveMessageTypeStart, Stream: &id, Codecs: &seg.Codecs}); err != nil {
		return err
	}
	return v.binary(seg.Init)
}
