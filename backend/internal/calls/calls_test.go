package calls_test

import (
	"context"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

func TestCloseWaitsForCallsAndRefusesOthersMeanwhile(t *testing.T) {
	g := &calls.Gate{Engine: "test"}
	require.NoError(t, g.Enter(t.Context()))
	require.NoError(t, g.Enter(t.Context()), "several calls are under way at once")
	firsts := make(chan bool, 2)
	for range 2 {
		go func() { firsts <- g.Close() }()
	}
	// Close waits for the two calls: whoever comes meanwhile is refused and does not wait.
	await.Until(t, "a call is refused", func() bool {
		err := g.Enter(t.Context())
		if err == nil {
			g.Leave()
		}
		return err == backend.ErrClosed
	})
	g.Leave()
	require.Never(t, func() bool { return len(firsts) > 0 }, 20*time.Millisecond, time.Millisecond, "one call is still under way")
	g.Leave()
	require.NotEqual(t, <-firsts, <-firsts, "one of the two was the first to close")
	require.Equal(t, backend.ErrClosed, g.Enter(t.Context()))
	require.False(t, g.Close())
}

func TestEndedContextIsNotLetIn(t *testing.T) {
	g := &calls.Gate{Engine: "test"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := g.Enter(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "test: context canceled")
	require.True(t, g.Close(), "nothing is under way")
	require.ErrorIs(t, g.Enter(ctx), context.Canceled, "the context comes before the store")
}
