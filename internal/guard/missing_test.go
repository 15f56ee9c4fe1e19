package guard_test

import (
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/guard"
	"github.com/stretchr/testify/require"
)

// wrapping is a store around another one.
type wrapping struct{ backend.Store }

func (w wrapping) Unwrap() backend.Store { return w.Store }

func TestWhatIsNilBehindAnInterfaceIsMissing(t *testing.T) {
	for _, v := range []any{nil, (*int)(nil), (func())(nil)} {
		require.True(t, guard.Missing(v), "%T", v)
	}
	for _, v := range []any{0, "", new(int), func() {}, struct{}{}} {
		require.False(t, guard.Missing(v), "%T", v)
	}
	var none *memory.Store
	for _, s := range []backend.Store{nil, none, wrapping{none}, wrapping{wrapping{none}}} {
		require.True(t, guard.MissingStore(s), "%T", s)
	}
	store := memory.New()
	for _, s := range []backend.Store{store, wrapping{store}, wrapping{wrapping{store}}, wrapping{}} {
		require.False(t, guard.MissingStore(s), "%T", s)
	}
}
