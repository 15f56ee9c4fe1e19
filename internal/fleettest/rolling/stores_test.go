package rolling_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/fleettest/rolling"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// stores make an empty store of each kind.
var stores = map[string]func(t *testing.T) rolling.Store{
	"badger":   func(t *testing.T) rolling.Store { return rolling.Store{Kind: "badger", At: t.TempDir()} },
	"sqlite":   onFile,
	"postgres": servers.onPostgres,
	"etcd":     servers.onEtcd,
}

func onFile(t *testing.T) rolling.Store {
	return rolling.Store{Kind: "sqlite", At: filepath.Join(t.TempDir(), "fob.db")}
}

// servers starts each server once.
var servers = &started{}

type started struct {
	mu       sync.Mutex
	postgres *pgtest.Server
	etcd     *etcdtest.Cluster
}

func TestMain(m *testing.M) {
	etcdtest.Main()
	code := m.Run()
	servers.close()
	os.Exit(code)
}

func (s *started) onPostgres(t *testing.T) rolling.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postgres == nil {
		server, err := pgtest.Start(context.Background(), pgtest.Config{Settings: []string{"fsync = off"}})
		if errors.Is(err, pgtest.ErrNoServer) {
			t.Skipf("not on PostgreSQL: %v", err)
		}
		require.NoError(t, err)
		s.postgres = server
	}
	return rolling.Store{Kind: "postgres", At: s.postgres.URL("postgres"), Name: name()}
}

func (s *started) onEtcd(t *testing.T) rolling.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.etcd == nil {
		cluster, err := etcdtest.Start(1, etcdtest.Options{NoSync: true})
		require.NoError(t, err)
		s.etcd = cluster
	}
	return rolling.Store{Kind: "etcd", At: s.etcd.Addr(0), Name: name() + "/"}
}

func (s *started) close() {
	if s.postgres != nil {
		_ = s.postgres.Close()
	}
	if s.etcd != nil {
		_ = s.etcd.Close()
	}
}

func name() string { return "rolling_" + strings.ToLower(rand.Text()[:12]) }
