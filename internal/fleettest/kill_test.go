package fleettest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// acknowledged is what a process was told that it has done.
type acknowledged struct {
	mu            sync.Mutex
	live, revoked []reply // keys
	unsure        int     // changes whose outcome is not known
}

// traffic issues and revokes keys in a process until stop is closed.
func (a *acknowledged) traffic(m *member, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		key, err := m.wait(m.send(request{Do: "issue", Subject: "app-42", For: 2 * time.Second}))
		if err != nil {
			return
		}
		if key.Err != "" {
			a.count(nil, key)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if n%2 == 0 {
			a.count(&a.live, key)
			continue
		}
		r, err := m.wait(m.send(request{Do: "revoke", ID: key.ID, For: 2 * time.Second}))
		if err != nil {
			return
		}
		if r.Err == "" {
			a.count(&a.revoked, key)
		} else {
			a.count(nil, r)
		}
	}
}

func (a *acknowledged) count(in *[]reply, r reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if in == nil {
		a.unsure++
		return
	}
	*in = append(*in, r)
}

// counts are how many keys live and how many were revoked.
func (a *acknowledged) counts() (live, revoked int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.live), len(a.revoked)
}

// holds checks in each process that everything which was acknowledged is so.
func (a *acknowledged) holds(t *testing.T, all []*member) {
	t.Helper()
	require.NotEmpty(t, a.live)
	require.NotEmpty(t, a.revoked)
	for _, m := range all {
		for _, key := range a.live {
			require.Equal(t, "ok", m.sure(request{Do: "verify", Text: key.Text}).What, "issued, acknowledged, and gone")
		}
		for _, key := range a.revoked {
			require.Equal(t, "revoked", m.sure(request{Do: "verify", Text: key.Text}).What, "revoked, acknowledged, and good")
		}
	}
	t.Logf("%d keys issued and %d revoked, all there in %d processes; %d changes in doubt", len(a.live), len(a.revoked), len(all), a.unsure)
}

// survives kills a server under the traffic of a fleet, some times over.
func survives(t *testing.T, s setup, kill func(round int)) {
	t.Helper()
	all := fleet(t, same(3, s)...)
	var a acknowledged
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, m := range all {
		for range 2 {
			wg.Go(func() { a.traffic(m, stop) })
		}
	}
	killings := 3
	if testing.Short() {
		killings = 1
	}
	goesOn := func() {
		t.Helper()
		live, revoked := a.counts()
		await.Until(t, "keys that are issued and revoked", func() bool {
			l, r := a.counts()
			return l > live+5 && r > revoked+5
		})
	}
	for round := range killings {
		goesOn()
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // at any moment
		kill(round)
		for _, m := range all {
			m.follows() // by itself
		}
	}
	goesOn()
	close(stop)
	wg.Wait()
	a.holds(t, append(all, begin(t, s)))
}

func TestPostgresIsKilled(t *testing.T) {
	server := startPostgres(t)
	defer func() { require.NoError(t, server.Close()) }()
	s := setup{Store: onPostgres{server}.fresh(t), MaxStaleness: time.Second}
	survives(t, s, func(int) {
		require.NoError(t, server.Kill())
		require.NoError(t, server.Restart(t.Context()))
	})
}

func TestTheLeaderOfEtcdIsKilled(t *testing.T) {
	cluster, err := etcdtest.Start(3, etcdtest.Options{Processes: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, cluster.Close()) }()
	s := setup{Store: storeAt{Kind: "etcd", Prefix: name() + "/", Endpoints: []string{cluster.Addr(0), cluster.Addr(1), cluster.Addr(2)}}, MaxStaleness: time.Second}
	survives(t, s, func(int) {
		leader := cluster.Leader()
		cluster.Kill(leader)
		require.NotEqual(t, leader, cluster.Leader(), "the others go on without it")
		require.NoError(t, cluster.Restart(leader))
	})
}

// A standby that is promoted after its primary died has everything that was
// acknowledged, if the primary waited for it; the processes find their way to it.
func TestPostgresFailsOver(t *testing.T) {
	if testing.Short() {
		t.Log("not in short mode: it takes a base backup")
		return
	}
	ctx := context.Background()
	primary := startPostgres(t)
	defer func() { require.NoError(t, primary.Close()) }()
	at := onPostgres{primary}.fresh(t)
	standby, err := primary.Standby(ctx, pgtest.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, standby.Close()) }()
	synchronous(ctx, t, at.URL)

	at.URL = fmt.Sprintf("postgres://postgres:%s@%s,%s/postgres?target_session_attrs=primary", password(t, at.URL), primary.Address(), standby.Address())
	survives(t, setup{Store: at, MaxStaleness: time.Second}, func(round int) {
		if round > 0 {
			return
		}
		require.NoError(t, primary.Kill())
		require.NoError(t, standby.Promote(ctx))
	})
}

// synchronous makes the server wait for its standby from now on.
func synchronous(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	pool, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	defer pool.Close()
	_, err = pool.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "SELECT pg_reload_conf()")
	require.NoError(t, err)
	await.Until(t, "a synchronous standby", func() bool {
		var n int
		err := pool.QueryRow(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&n)
		return err == nil && n == 1
	})
}

func password(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	return cfg.ConnConfig.Password
}

// A process that refreshes is killed at any moment: what it was given last still works,
// or the family has ended; there are never two branches.
func TestAProcessThatRefreshesIsKilled(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		s := setup{Store: e.fresh(t), MaxStaleness: time.Second, RefreshGrace: time.Hour}
		strict := s
		strict.RefreshGrace = -1
		all := fleet(t, s, strict)
		here, there := all[0], all[1]
		key := here.must(request{Do: "issue", Subject: "app-42"})
		killings := 12
		if testing.Short() {
			killings = 3
		}
		went, ended, refreshes := 0, 0, 0
		for n := range killings {
			tokens := here.must(request{Do: "exchange", Text: key.Text})
			doomed := begin(t, s)
			told := doomed.send(request{Do: forEver, Text: tokens.Next})
			secrets := []string{tokens.Next}
			if n%4 != 0 { // else it may be killed in its first refresh, or before
				r, err := doomed.wait(told)
				require.NoError(t, err)
				require.Empty(t, r.Err)
				secrets = append(secrets, r.Next)
			}
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			doomed.kill()
			for len(told) > 0 {
				if r := <-told; r.Err == "" {
					secrets = append(secrets, r.Next)
				}
			}
			refreshes += len(secrets) - 1

			// The last one that it was told of may have been used, its answer lost: then it
			// gives the same successor again. Else it gives the first.
			next := here.do(request{Do: "refresh", Text: secrets[len(secrets)-1]})
			again := here.do(request{Do: "refresh", Text: secrets[len(secrets)-1]})
			require.Equal(t, next.Next, again.Next, "two successors of one secret")
			if next.Err != "" {
				require.True(t, next.Reject, next.Err)
				ended++
				continue
			}
			went++
			here.must(request{Do: "verify", Text: next.Text})
			if len(secrets) > 1 { // an older one leads to the same
				older := here.must(request{Do: "refresh", Text: secrets[len(secrets)-2]})
				require.Equal(t, next.Next, older.Next, "two branches")
			}
			after := there.must(request{Do: "refresh", Text: next.Next})
			if len(secrets) > 1 { // without grace it ends all
				require.True(t, here.do(request{Do: "refresh", Text: secrets[len(secrets)-2]}).Reject)
				require.True(t, here.do(request{Do: "refresh", Text: after.Next}).Reject)
				require.True(t, here.do(request{Do: "verify", Text: after.Text}).Reject)
			}
		}
		t.Logf("%d killings amid %d refreshes: %d families went on, %d had ended", killings, refreshes, went, ended)
		require.NotZero(t, went)
	})
}
