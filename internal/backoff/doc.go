// Package backoff spaces out attempts at something that failed: each pause is longer than the one
// before up to a limit, and random by half, so that many callers do not come back at once.
package backoff
