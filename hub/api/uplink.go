package api

import (
	"context"
	"errors"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
)

// refusalOf returns what a site's uplink budget refused, nil if the error is another.
func refusalOf(err error) *Refusal {
	var r *budget.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	told := &Refusal{
		Budget: int64(r.Budget), Until: optional(r.Until), Zone: r.Zone, Used: int64(r.Used), Viewers: r.Viewers,
		Need: int64(r.Need), Spent: r.Spent, Instead: []Alternative{},
	}
	for _, o := range r.Instead {
		told.Instead = append(told.Instead, Alternative{
			Stream: string(o.Stream), KeyFrames: o.KeyFrames, Need: int64(o.Need)})
	}
	return told
}

// whyRefused returns the refusal in a sentence for people, without where it came from.
func whyRefused(err error) string {
	var r *budget.Refusal
	if !errors.As(err, &r) {
		return ""
	}
	return r.Error()
}

// refused tells the receiver of a live stream that its site refused it, if the error says so.
func (v *viewer) refused(err error) error {
	refusal := refusalOf(err)
	if refusal == nil {
		return nil
	}
	cause := whyRefused(err)
	return v.text(LiveMessage{Type: LiveMessageTypeRefused, Cause: &cause, Refusal: refusal})
}

func (s strictServer) GetUplink(ctx context.Context, req GetUplinkRequestObject) (GetUplinkResponseObject, error) {
	u, err := s.Hub.Uplink(ctx, branchline.SiteID(req.Site))
	if errors.Is(err, branchline.ErrUnavailable) || errors.Is(err, branchline.ErrNotFound) {
		return GetUplink204Response{}, nil // which is nothing wrong
	}
	if err != nil {
		return nil, err
	}
	told := GetUplink200JSONResponse{
		Rate: int64(u.Rate), Until: optional(u.Until), Zone: u.Zone, Bulk: int64(u.Bulk), Used: int64(u.Used),
		Viewers: u.Viewers,
	}
	if u.Percent > 0 {
		told.Percent = &u.Percent
	}
	if u.Capacity > 0 {
		capacity := int64(u.Capacity)
		told.Capacity = &capacity
	}
	if u.Quota > 0 {
		told.Quota = &UplinkQuota{Bytes: u.Quota, Used: u.Sent, From: stamp(u.Month), To: stamp(u.Ends), Spent: u.Spent}
	}
	return told, nil
}
