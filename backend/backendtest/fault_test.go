package backendtest_test

import (
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestAFaultThatDoesNothingKeepsTheContract(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Store { return backendtest.NewFault(memory.New()) },
		backendtest.Options{Records: few, Groups: []string{"listing", "labels", "count", "bulk", "close"}})
}

func TestAFaultCountsOnlyWhereItsStoreDoes(t *testing.T) {
	store := memory.New()
	_, counts := backend.As[backend.Counter](backendtest.NewFault(struct{ backend.Store }{store}))
	require.False(t, counts)

	fault := backendtest.NewFault(store)
	counter, counts := backend.As[backend.Counter](fault)
	require.True(t, counts)
	_, err := fault.Put(t.Context(), backend.Record{ID: backend.ID{1}, Kind: 1, Labels: []string{"a"}}, backend.IfAbsent())
	require.NoError(t, err)
	q := backend.Query{Kind: 1, Label: "a"}
	fault.InjectOnce(backendtest.OpCount, backendtest.Unavailable())
	_, err = counter.Count(t.Context(), q, 5)
	require.ErrorIs(t, err, backendtest.ErrInjected)
	n, err := counter.Count(t.Context(), q, 5)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, 2, fault.Calls(backendtest.OpCount))
	require.Equal(t, 3, fault.Calls(""), "with the Put")
}
