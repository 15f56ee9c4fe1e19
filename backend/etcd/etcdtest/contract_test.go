package etcdtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/link"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// With writerAt set the test binary is a child that writes until it is killed.
const (
	writerAt     = "FOB_ETCD_WRITER"
	writerPrefix = "FOB_ETCD_PREFIX"
	writerRound  = "FOB_ETCD_ROUND"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	if at := os.Getenv(writerAt); at != "" {
		client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(at, ","), Logger: zap.NewNop()})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		store, err := etcd.New(client, etcd.Options{Prefix: os.Getenv(writerPrefix), Timeout: patient.Timeout})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		round, _ := strconv.Atoi(os.Getenv(writerRound))
		backendtest.KillWriter(store, os.Stdout, round)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// cluster starts one that ends with the test.
func cluster(t testing.TB, members int, opts etcdtest.Options) *etcdtest.Cluster {
	t.Helper()
	c, err := etcdtest.Start(members, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func client(t testing.TB, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// behind is a link to the first member, and how to connect through it.
func behind(t testing.TB, c *etcdtest.Cluster) (*link.Link, clientv3.Config) {
	t.Helper()
	l := linkTo(t, c.Addr(0))
	cfg := c.Config()
	cfg.Endpoints = []string{"http://" + l.Addr()}
	return l, cfg
}

func linkTo(t testing.TB, addr string) *link.Link {
	t.Helper()
	l, err := link.Start(addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// mute loses what the server says; what it is told still arrives.
func mute(l *link.Link) { l.Set(link.Way{}, link.Way{Lose: true}) }

func open(t testing.TB, c *clientv3.Client, opts etcd.Options) *etcd.Store {
	t.Helper()
	s, err := etcd.New(c, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) { contract(t, 1, backendtest.Options{}) }

// owner is a store with the client that it borrows, which is closed after it.
type owner struct {
	*etcd.Store
	client *clientv3.Client
}

func (o *owner) Close() error {
	err := o.Store.Close()
	_ = o.client.Close() // closed twice is as well
	return err
}

// contract runs the suite, with a prefix for each store. The members are processes of
// their own, and have no goroutines here.
//
// Stores share a client where there is one member: its only connection is there from
// the start, and any goroutine that is left behind after Close is a leak of the
// store's. A client of several members connects to one more of them at any time, in
// goroutines that are its own; there each store has a client that is closed with it,
// and nothing of the two may be left.
func contract(t *testing.T, members int, suite backendtest.Options) {
	c := cluster(t, members, etcdtest.Options{Processes: true, NoSync: true})
	var stores atomic.Int64
	var mu sync.Mutex // guards at
	type place struct {
		prefix string
		link   *link.Link
	}
	at := map[backend.Store]place{}
	var shared *clientv3.Client // nil where each store has its own
	if members == 1 {
		shared = client(t, c.Config())
	}
	fresh := func(t *testing.T, cfg clientv3.Config, p place) backend.Store {
		with := shared
		if with == nil || p.link != nil {
			with = client(t, cfg)
		}
		opts := etcd.Options{Prefix: p.prefix}
		if p.link == nil {
			opts.Timeout = patient.Timeout
		}
		store, err := etcd.New(with, opts)
		require.NoError(t, err)
		var s backend.Store = store
		if with != shared {
			s = &owner{store, with}
		}
		mu.Lock()
		defer mu.Unlock()
		at[s] = p
		return s
	}
	placeOf := func(s backend.Store) place {
		mu.Lock()
		defer mu.Unlock()
		return at[s]
	}
	suite.Reopen = func(t *testing.T, s backend.Store) backend.Store {
		require.NoError(t, s.Close())
		return fresh(t, c.Config(), placeOf(s))
	}
	suite.Kill = func(t *testing.T) {
		prefix := fmt.Sprintf("kill%d/", stores.Add(1))
		rounds := 2
		if testing.Short() {
			rounds = 1
		}
		backendtest.KillLoop(t, rounds, func(round int) *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), writerAt+"="+strings.Join(c.Config().Endpoints, ","), writerPrefix+"="+prefix, fmt.Sprint(writerRound, "=", round))
			return cmd
		}, func(t *testing.T) backend.Store { return fresh(t, c.Config(), place{prefix: prefix}) })
	}
	suite.Cut = func(t *testing.T, s backend.Store) func() {
		l := placeOf(s).link
		l.Silence()
		return func() { require.NoError(t, l.Mend()) }
	}
	backendtest.Run(t, func(t *testing.T) backend.Store {
		p := place{prefix: fmt.Sprintf("store%d/", stores.Add(1))}
		if !strings.Contains(t.Name(), "cut_off") {
			return fresh(t, c.Config(), p)
		}
		l, cfg := behind(t, c)
		p.link = l
		cfg.DialKeepAliveTime, cfg.DialKeepAliveTimeout = time.Second, time.Second
		return fresh(t, cfg, p)
	}, suite)
}
