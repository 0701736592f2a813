package ingest

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"

	"github.com/branchline-video/branchline"
)

// ErrNoTrack: the camera offers nothing that can be recorded.
var ErrNoTrack = errors.New("no track that can be recorded")

// CauseOf returns why there is no recording after a session ended with err.
func CauseOf(err error) branchline.Cause {
	var status liberrors.ErrClientBadStatusCode
	var auth liberrors.ErrClientAuthSetup
	var network net.Error
	switch {
	case errors.As(err, &auth):
		return branchline.CauseRefused
	case errors.As(err, &status):
		if status.Code == base.StatusUnauthorized || status.Code == base.StatusForbidden {
			return branchline.CauseRefused
		}
		return branchline.CauseUnreachable
	case errors.Is(err, context.Canceled):
		return branchline.CauseStopped
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.As(err, new(liberrors.ErrClientTCPTimeout)), errors.As(err, new(liberrors.ErrClientTerminated)),
		errors.As(err, new(liberrors.ErrClientRequestTimedOut)):
		return branchline.CauseUnreachable
	default:
		return branchline.CauseDamaged
	}
}
