package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/stretchr/testify/require"
)

// A time of the machine's clock is as long ago for a Clock that shows another time.
func TestATimeOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, read := range map[string]func() time.Time{
			"the machine's": nil,
			"another one":   func() time.Time { return time.Now().Add(-time.Hour) },
		} {
			var c clock.Clock
			c.Start(read, 24*time.Hour)
			at := time.Now().Add(time.Minute)
			time.Sleep(time.Minute + 3*time.Second)
			now := c.Now()
			require.Equal(t, int64(3*time.Second), now.Age(c.MonoOf(at)), name)
			require.Zero(t, now.Age(c.MonoOf(at.Add(time.Hour))), "%s: what is still to come is now", name)
		}
	})
}
