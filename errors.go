package branchline

import "errors"

// The errors on which callers branch; everything else is for people to read. The wire and the REST
// API each have one table from these to their own codes.
var (
	// ErrUnavailable: the node cannot be reached or is closing; try again later.
	ErrUnavailable = errors.New("unavailable")
	// ErrGone: what was asked for existed and is no longer kept.
	ErrGone = errors.New("gone")
	// ErrNotFound: what was asked for is not known here.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the caller may not do this; trying again changes nothing.
	ErrDenied = errors.New("denied")
	// ErrInvalid: the request itself is wrong.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: a message, list or file is over its named limit.
	ErrTooLarge = errors.New("too large")
	// ErrBusy: a limit on simultaneous work is reached, or another writer is there; try again later.
	ErrBusy = errors.New("busy")
	// ErrMismatch: bytes do not have the hash that they should have.
	ErrMismatch = errors.New("hash mismatch")
)
