package badger_test

import (
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

func TestContract(t *testing.T) {
	dirs := map[backend.Store]string{}
	open := func(t *testing.T, dir string) backend.Store {
		s, err := badger.Open(dir, badger.Options{})
		require.NoError(t, err)
		dirs[s] = dir
		return s
	}
	backendtest.Run(t,
		func(t *testing.T) backend.Store { return open(t, t.TempDir()) },
		backendtest.Options{Reopen: func(t *testing.T, s backend.Store) backend.Store {
			require.NoError(t, s.Close())
			return open(t, dirs[s])
		}})
}
