package keystate_test

import (
	"testing"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/retry"
	"github.com/stretchr/testify/require"
)

func TestACallThatHasWaitedLongEnoughTakesTheWorkOver(t *testing.T) {
	tries := 0
	var w keystate.Waits
	require.NoError(t, retry.Do(t.Context(), func(bool) error { tries++; return w.Wait() }))
	require.Equal(t, keystate.MaxWaits+1, tries)
	require.ErrorIs(t, w.Wait(), errs.ErrTakenOver, "it waits as long again")
}
