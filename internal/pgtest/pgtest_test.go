package pgtest_test

import (
	"errors"
	"net"
	"testing"

	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// A server starts, is killed and starts again on the same data, and is gone after
// Close.
func TestServer(t *testing.T) {
	if testing.Short() {
		t.Skip("initdb takes seconds")
	}
	s, err := pgtest.Start(t.Context(), pgtest.Config{Settings: []string{"max_connections = 11"}})
	if errors.Is(err, pgtest.ErrNoServer) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	listens := func(want bool) {
		t.Helper()
		conn, err := net.Dial("tcp", s.Address())
		require.Equal(t, want, err == nil, err)
		if err == nil {
			require.NoError(t, conn.Close())
		}
	}
	listens(true)
	for range 2 {
		require.NoError(t, s.Kill())
		listens(false)
		require.NoError(t, s.Kill(), "of one that is down")
		require.NoError(t, s.Restart(t.Context()))
		listens(true)
	}
	require.NoError(t, s.Restart(t.Context()), "of one that runs")
	require.NoError(t, s.Stop())
	listens(false)
	require.NoError(t, s.Restart(t.Context()))
	require.NoError(t, s.Close())
	listens(false)
	require.Error(t, s.Restart(t.Context()), "after Close")
}
