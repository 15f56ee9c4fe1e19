package postgres_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/stretchr/testify/require"
)

func TestTheClockOfTheServer(t *testing.T) {
	store, _ := open(t, postgres.Options{})
	clock, ok := backend.As[backend.Clock](store)
	require.True(t, ok)
	before := time.Now()
	now, err := clock.Now(t.Context())
	require.NoError(t, err)
	require.WithinRange(t, now, before.Add(-time.Second), time.Now().Add(time.Second), "the server of the tests runs here")
	require.NoError(t, store.Close())
	_, err = clock.Now(t.Context())
	require.ErrorIs(t, err, backend.ErrClosed)
}
