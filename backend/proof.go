package backend

import (
	"context"
	"time"
)

type proofKey struct{}

// WithProofEvery returns a context for [Watcher].Watch. Its caller needs a proof of
// freshness, which is a Batch with or without changes, only every d while nothing changes.
// A d of less than HeartbeatEvery counts as HeartbeatEvery. A proof costs a question to
// the engine; a feed that changes wake asks no other while nothing changes.
func WithProofEvery(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, proofKey{}, d)
}

// ProofEvery returns the longest time that a Watch with this context may let pass between
// two Batches while nothing changes. It is what WithProofEvery has set, HeartbeatEvery by
// default and at least.
func ProofEvery(ctx context.Context) time.Duration {
	d, _ := ctx.Value(proofKey{}).(time.Duration)
	return max(d, HeartbeatEvery)
}
