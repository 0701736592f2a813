package branchline

import "context"

type verifierKey struct{}

// WithVerifier tells [Source.Fetch] that whoever gets the bytes verifies each fragment by its hash. The source may then
// leave it at the checksum, which finds most of what a disk does to it, though not what somebody does on purpose.
func WithVerifier(ctx context.Context) context.Context {
	return context.WithValue(ctx, verifierKey{}, true)
}

// Verifies reports whether ctx is of [WithVerifier].
func Verifies(ctx context.Context) bool { return ctx.Value(verifierKey{}) != nil }
