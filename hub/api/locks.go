package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
)

// reasonLock is the reason of a retrieval that brings over what was locked.
const reasonLock = "evidence lock"

func (s strictServer) ListLocks(context.Context, ListLocksRequestObject) (ListLocksResponseObject, error) {
	list := ListLocks200JSONResponse{Locks: []Lock{}}
	for _, l := range s.Locks.Locks() {
		list.Locks = append(list.Locks, s.lock(l))
	}
	return list, nil
}

func (s strictServer) CreateLock(ctx context.Context, req CreateLockRequestObject) (CreateLockResponseObject, error) {
	order := evidence.Order{
		Span: branchline.TimeRange{Start: stamp(req.Body.From), End: stamp(req.Body.To)},
		By:   callerOf(ctx).User, Reason: req.Body.Reason,
	}
	if req.Body.Until != nil {
		order.Until = stamp(*req.Body.Until)
	}
	var err error
	if order.Streams, err = s.ordered(req.Body.Camera, req.Body.Streams); err != nil {
		return nil, err
	}
	if err := s.record(ctx, access.ActionLockCreate,
		fmt.Sprintf("%s (%s)", footage(order.Streams, order.Span), order.Reason)); err != nil {
		return nil, err
	}
	locked, err := s.Locks.Create(ctx, order)
	if err != nil {
		return nil, err
	}
	answer := s.lock(locked)
	if req.Body.Retrieve == nil || *req.Body.Retrieve {
		job, err := s.retrieveLocked(ctx, locked)
		if err != nil { // the lock stands all the same
			answer.RetrievalCause = s.whyNot(err)
		} else {
			answer.Retrieval = &job
		}
	}
	return CreateLock201JSONResponse(answer), nil
}

// whyNot tells of an error what its caller may know of it; the log is told the rest.
func (a *API) whyNot(err error) *string {
	cause := err.Error()
	if told := answerTo(err); told.status >= http.StatusInternalServerError {
		a.log.Warn("what was locked is not retrieved", "error", err)
		cause = told.advice
	}
	return &cause
}

// retrieveLocked orders what was locked to be brought over, and returns the retrieval.
func (s strictServer) retrieveLocked(ctx context.Context, l evidence.Lock) (string, error) {
	if err := s.record(ctx, access.ActionRetrievalCreate, footage(l.Streams, l.Span)); err != nil {
		return "", err
	}
	job, err := s.Jobs.Create(fetch.Order{Streams: l.Streams, Span: l.Span, By: l.By, Reason: reasonLock})
	if err != nil {
		return "", err
	}
	return job.ID, s.Locks.SetJob(l.ID, job.ID)
}

func (s strictServer) RemoveLock(ctx context.Context, req RemoveLockRequestObject) (RemoveLockResponseObject, error) {
	l, err := s.Locks.Lock(req.Lock)
	if err != nil {
		return nil, err
	}
	object := fmt.Sprintf("%s: %s (%s)", l.ID, footage(l.Streams, l.Span), l.Reason)
	if err := s.record(ctx, access.ActionLockRemove, object); err != nil {
		return nil, err
	}
	if err := s.Locks.Remove(ctx, req.Lock); err != nil {
		return nil, err
	}
	return RemoveLock204Response{}, nil
}

// lock translates a lock.
func (a *API) lock(l evidence.Lock) Lock {
	state, cause := l.Edge()
	told := Lock{
		Id: l.ID, User: l.By, Created: stamp(l.Created), Streams: []string{}, From: stamp(l.Span.Start),
		To: stamp(l.Span.End), Until: optional(l.Until), Reason: l.Reason, State: LockStateLocked, AtHub: l.Here(),
		AtSite: LockAtSite(state), Cause: optionalText(cause), Retrieval: optionalText(l.Job),
	}
	for _, stream := range l.Streams {
		told.Streams = append(told.Streams, string(stream))
	}
	switch {
	case l.Removed:
		told.State = LockStateUnlocking
	case l.Ended(a.Clock.Now()):
		told.State = LockStateEnded
	}
	return told
}
