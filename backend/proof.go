package backend

import (
	"context"
	"time"
)

type proofKey struct{}

// WithProofEvery returns a context for a Watch that needs a proof of freshness no oftener
// than every d, while nothing changes. A proof costs a question to the engine, which a
// feed that is woken by changes has no other reason to ask.
func WithProofEvery(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, proofKey{}, d)
}

// ProofEvery returns how often a Watch must send a Batch while nothing changes: what
// WithProofEvery has set, and never less than HeartbeatEvery, which is the default.
func ProofEvery(ctx context.Context) time.Duration {
	d, _ := ctx.Value(proofKey{}).(time.Duration)
	return max(d, HeartbeatEvery)
}
