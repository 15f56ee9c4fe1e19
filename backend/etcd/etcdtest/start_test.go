package etcdtest_test

import (
	"net"
	"os"
	"testing"

	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// both runs a test with members here and with members in processes of their own.
func both(t *testing.T, test func(t *testing.T, opts etcdtest.Options)) {
	t.Helper()
	for name, processes := range map[string]bool{"here": false, "processes": true} {
		t.Run(name, func(t *testing.T) { test(t, etcdtest.Options{Processes: processes, NoSync: true}) })
	}
}

// A cluster of which a member cannot start, its port being taken, says so, and leaves
// nothing behind of those that could.
func TestAClusterThatCannotStart(t *testing.T) {
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	both(t, func(t *testing.T, opts etcdtest.Options) {
		for broken := range 3 {
			c, err := etcdtest.StartAt(3, opts, broken, taken.Addr().String())
			require.ErrorContains(t, err, "address already in use")
			require.Nil(t, c)
			left, err := os.ReadDir(base)
			require.NoError(t, err)
			require.Empty(t, left)
		}
		c, err := etcdtest.Start(0, opts)
		require.Error(t, err)
		require.Nil(t, c)
	})
}

// A member whose port another has cannot be restarted, at once and without harm: the
// cluster goes on, the member starts when the port is free, and Close closes.
func TestAMemberThatCannotStart(t *testing.T) {
	both(t, func(t *testing.T, opts etcdtest.Options) {
		t.Parallel()
		c := cluster(t, 3, opts)
		s := open(t, client(t, c.Config()), etcd.Options{})
		create(t, s, 1)
		require.Error(t, c.Restart(1), "it runs")
		c.Stop(1)
		c.Stop(1)
		taken, err := net.Listen("tcp", c.Addr(1))
		require.NoError(t, err)
		require.Error(t, c.Restart(1))
		require.Error(t, c.Restart(1))
		c.Kill(1)
		leader := c.Leader()
		require.NotEqual(t, 1, leader)
		require.NotEqual(t, -1, leader)
		c.Isolate(1)
		c.Heal()
		create(t, s, 2)
		require.NoError(t, taken.Close())
		require.NoError(t, c.Restart(1))
		alone := open(t, client(t, c.Config(1)), etcd.Options{})
		await.Until(t, "an answer of the member that is back", func() bool {
			_, err := alone.Get(t.Context(), record(2).ID)
			return err == nil
		})
		c.Stop(2)
		taken, err = net.Listen("tcp", c.Addr(2))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, taken.Close()) })
		require.Error(t, c.Restart(2))
		require.NoError(t, c.Close(), "with a member that could not start")
		require.NoError(t, c.Close(), "again")
		require.Error(t, c.Restart(0), "after Close")
	})
}

// The port of a member that is stopped stays its own, however many are asked for.
func TestAStoppedMembersPortIsNobodyElses(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	for range 3 {
		c.Stop(0)
		for range 1000 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NotEqual(t, c.Addr(0), l.Addr().String())
			defer func() { require.NoError(t, l.Close()) }()
		}
		require.NoError(t, c.Restart(0))
	}
	require.Equal(t, 0, c.Leader())
}

// Nobody who has no TLS is given any.
func TestWithoutTLS(t *testing.T) {
	t.Parallel()
	require.Nil(t, cluster(t, 1, etcdtest.Options{NoSync: true}).TLS())
}
