package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/internal/retry"
	"github.com/stretchr/testify/require"
)

func TestBackoffGrowsToItsMost(t *testing.T) {
	var b retry.Backoff
	for _, ms := range []time.Duration{50, 100, 200, 400, 800, 1600, 2000, 2000} {
		require.Equal(t, ms*time.Millisecond, b.Next())
	}
	b.Reset()
	require.Equal(t, 50*time.Millisecond, b.Next())
}

func TestBackoffPausesWithARandomPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b retry.Backoff
		pauses := map[time.Duration]bool{}
		for range 20 {
			b.Reset()
			began := time.Now()
			b.Pause(t.Context())
			took := time.Since(began)
			require.GreaterOrEqual(t, took, 50*time.Millisecond)
			require.Less(t, took, 75*time.Millisecond)
			pauses[took] = true
		}
		require.Greater(t, len(pauses), 1)

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		b.Pause(ended)
		require.Zero(t, time.Since(began))
	})
}
