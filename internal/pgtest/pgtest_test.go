package pgtest_test

import (
	"errors"
	"net"
	"os"
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

// A server that cannot start says why and leaves nothing behind; one that cannot start
// again, because somebody else listens on its port, can be closed.
func TestAServerThatCannotStart(t *testing.T) {
	if testing.Short() {
		t.Skip("initdb takes seconds")
	}
	base, err := os.MkdirTemp("/var/tmp", "fob-pgtest-") // open to the server's user, unlike t.TempDir
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(base)) })
	require.NoError(t, os.Chmod(base, 0o777))
	t.Setenv("TMPDIR", base)
	empty := func() {
		t.Helper()
		left, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Empty(t, left)
	}
	_, err = pgtest.Start(t.Context(), pgtest.Config{Settings: []string{"nonsense = 1"}})
	if errors.Is(err, pgtest.ErrNoServer) {
		t.Skip(err)
	}
	require.ErrorContains(t, err, "nonsense")
	empty()

	s, err := pgtest.Start(t.Context(), pgtest.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Stop())
	taken, err := net.Listen("tcp", s.Address())
	require.NoError(t, err)
	require.ErrorContains(t, s.Restart(t.Context()), "in use")
	require.NoError(t, s.Kill(), "of one that could not start")
	require.NoError(t, taken.Close())
	require.NoError(t, s.Restart(t.Context()))
	require.NoError(t, s.Stop())
	taken, err = net.Listen("tcp", s.Address())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	require.Error(t, s.Restart(t.Context()))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "again")
	empty()
}
