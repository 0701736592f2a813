package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

var (
	// ErrVersion means that the two nodes have no version of the protocol in common; one must be updated.
	ErrVersion = errors.New("no common protocol version")
	// ErrReplaced means that a newer link of the same site took the place of this one.
	ErrReplaced = errors.New("replaced by a newer link of the same site")
)

type wireError struct {
	code wire.Code
	err  error
}

// wireErrors is the table from errors to codes and back. Where an error is several of these the first
// counts.
func wireErrors() [25]wireError {
	return [25]wireError{
		{wire.Code_CODE_TOKEN_UNKNOWN, identity.ErrTokenUnknown},
		{wire.Code_CODE_TOKEN_USED, identity.ErrTokenUsed},
		{wire.Code_CODE_TOKEN_EXPIRED, identity.ErrTokenExpired},
		{wire.Code_CODE_CERTIFICATE_FOREIGN, identity.ErrForeign},
		{wire.Code_CODE_CERTIFICATE_REVOKED, identity.ErrRevoked},
		{wire.Code_CODE_CERTIFICATE_EXPIRED, identity.ErrExpired},
		{wire.Code_CODE_CERTIFICATE_EARLY, identity.ErrEarly},
		{wire.Code_CODE_QUARANTINED, identity.ErrQuarantined},
		{wire.Code_CODE_SUPERSEDED, identity.ErrSuperseded},
		{wire.Code_CODE_WAITING, identity.ErrWaiting},
		{wire.Code_CODE_REFUSED, identity.ErrRefused},
		{wire.Code_CODE_VERSION, ErrVersion},
		{wire.Code_CODE_REPLACED, ErrReplaced},
		{wire.Code_CODE_LOOP, ErrLoop},
		{wire.Code_CODE_STALLED, link.ErrStalled},
		{wire.Code_CODE_GONE, branchline.ErrGone},
		{wire.Code_CODE_NOT_FOUND, branchline.ErrNotFound},
		{wire.Code_CODE_DENIED, branchline.ErrDenied},
		{wire.Code_CODE_TOO_LARGE, branchline.ErrTooLarge},
		{wire.Code_CODE_INVALID, branchline.ErrInvalid},
		{wire.Code_CODE_BUSY, branchline.ErrBusy},
		{wire.Code_CODE_MISMATCH, branchline.ErrMismatch},
		{wire.Code_CODE_UNAVAILABLE, branchline.ErrUnavailable},
		{wire.Code_CODE_CANCELLED, context.Canceled},
		{wire.Code_CODE_CANCELLED, context.DeadlineExceeded},
	}
}

func codeOf(err error) wire.Code {
	for _, e := range wireErrors() {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	return wire.Code_CODE_INTERNAL
}

// errorOf returns the error that a peer's code stands for. What only the peer can explain, such as its
// own cancellation, is unavailable to us.
func errorOf(code wire.Code) error {
	if code == wire.Code_CODE_INTERNAL {
		return errInternal
	}
	for _, e := range wireErrors() {
		if e.code == code && code != wire.Code_CODE_CANCELLED {
			return e.err
		}
	}
	return branchline.ErrUnavailable
}

var errInternal = errors.New("internal error of the peer")

// maxText bounds an error's text on the wire, in bytes.
const maxText = 500

func encodeError(err error) *wire.Error {
	return &wire.Error{Code: codeOf(err), Text: clipText(err.Error(), maxText), Refusal: encodeRefusal(err)}
}

// clipText returns the text with at most so many bytes, none of them half a character: protobuf refuses that.
func clipText(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// remoteError is an error of the peer: its text, and what it means.
type remoteError struct {
	text string
	err  error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }

func decodeError(e *wire.Error) error {
	err := errorOf(e.GetCode())
	if refusal := decodeRefusal(e.GetRefusal()); refusal != nil {
		return refusal
	}
	text := e.GetText()
	if text == "" {
		return err
	}
	return &remoteError{text: clipText(text, maxText), err: err}
}

// fromLink says what an error of a connection or stream means to the caller of a source: a stream that
// the peer reset has the meaning of its code, and everything else that the peer cannot be reached.
func fromLink(err error) error {
	var e *link.Error
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, branchline.ErrInvalid),
		errors.Is(err, branchline.ErrTooLarge), errors.Is(err, branchline.ErrUnavailable):
		return err
	case !errors.As(err, &e):
		return fmt.Errorf("%w: %w", branchline.ErrUnavailable, err)
	case e.Conn && e.Remote:
		return fmt.Errorf("%w: %w", branchline.ErrUnavailable, refusal(e))
	case e.Remote:
		return fmt.Errorf("%w: %w", errorOf(wire.Code(e.Code)), err)
	}
	return fmt.Errorf("%w: %w", branchline.ErrUnavailable, err)
}

// refusal is the reason with which the peer closed a connection.
func refusal(e *link.Error) error {
	return decodeError(&wire.Error{Code: wire.Code(e.Code), Text: e.Reason})
}

func linkCode(c wire.Code) link.Code { return link.Code(c) }

// closeFor ends the connection and tells the peer the error, nil for none.
func closeFor(c link.Conn, err error) error {
	if err == nil {
		return c.Close(linkCode(wire.Code_CODE_UNSPECIFIED), "")
	}
	return c.Close(linkCode(codeOf(err)), err.Error())
}
