package news

import (
	"context"
	"time"

	"github.com/fobkit/fob/backend"
)

// ProofPause returns how long a Watch with this context waits from one proof to the next
// while nothing changes. Where the context says nothing it is half of what the contract
// asks for, because the Batch takes time too; a caller that has set [backend.WithProofEvery]
// allows for that itself.
func ProofPause(ctx context.Context) time.Duration {
	every := backend.ProofEvery(ctx)
	if every == backend.HeartbeatEvery {
		return every / 2
	}
	return every
}
