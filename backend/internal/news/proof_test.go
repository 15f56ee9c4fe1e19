package news_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/stretchr/testify/require"
)

func TestTheTimeBetweenTwoProofs(t *testing.T) {
	ctx := t.Context()
	require.Equal(t, backend.HeartbeatEvery/2, news.ProofPause(ctx))
	require.Equal(t, backend.HeartbeatEvery/2, news.ProofPause(backend.WithProofEvery(ctx, time.Millisecond)), "not oftener than the contract says")
	require.Equal(t, 500*time.Millisecond, news.ProofPause(backend.WithProofEvery(ctx, 500*time.Millisecond)))
}
