package badger_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// ahead is a store whose next commit is held up, while the batch after it is evaluated.
type ahead struct {
	*badger.Store
	batches atomic.Int64  // that were taken from the queue, in full or in part
	busy    chan struct{} // a commit has begun, and waits for release
	release chan struct{}
}

// behindACommit has one write committed that is held up.
func behindACommit(t *testing.T, first func(*badger.Store)) *ahead {
	t.Helper()
	a := &ahead{Store: open(t, t.TempDir(), badger.Options{}), busy: make(chan struct{}, 100), release: make(chan struct{})}
	a.OnBatch(func(int) { a.batches.Add(1) })
	a.OnCommit(func() { a.busy <- struct{}{}; <-a.release })
	go first(a.Store)
	<-a.busy
	return a
}

// then hands a write to the writer, and returns when it was taken. The answer comes later.
func (a *ahead) then(t *testing.T, write func() error) (answer <-chan error) {
	t.Helper()
	before, told := a.batches.Load(), make(chan error, 1)
	go func() { told <- write() }()
	await.Until(t, "the write is taken", func() bool { return a.batches.Load() > before })
	return told
}

func (a *ahead) put(rec backend.Record, cond backend.Cond, version *uint64) func() error {
	return func() (err error) {
		*version, err = a.Put(context.Background(), rec, cond)
		return err
	}
}

// A batch that is evaluated while the one before is committed sees what that one changes.
// Nobody else does, and nobody is answered, until it is on disk.
func TestABatchOnTopOfOneThatIsBeingCommitted(t *testing.T) {
	var versions [5]uint64
	first := make(chan error, 1)
	a := behindACommit(t, func(s *badger.Store) {
		var err error
		versions[0], err = s.Put(context.Background(), record(1), backend.IfAbsent())
		first <- err
	})
	twice := a.then(t, a.put(record(1), backend.IfAbsent(), &versions[1]))
	changed := record(1)
	changed.Body = []byte("changed")
	update := a.then(t, a.put(changed, backend.IfVersion(1), &versions[2])) // in a new store the first change is number 1
	late := a.then(t, a.put(changed, backend.IfVersion(1), &versions[3]))
	other := a.then(t, a.put(record(2), backend.IfAbsent(), &versions[4]))
	gone := a.then(t, func() error { return a.Delete(context.Background(), record(2).ID, 3) })
	missing := a.then(t, func() error { return a.Delete(context.Background(), record(2).ID, 3) })
	for _, id := range []backend.ID{record(1).ID, record(2).ID} {
		_, err := a.Get(t.Context(), id)
		require.ErrorIs(t, err, backend.ErrNotFound, "it is not on disk")
	}
	for _, answer := range []<-chan error{first, twice, update, late, other, gone, missing} {
		require.Empty(t, answer)
	}

	close(a.release)
	require.NoError(t, <-first)
	require.ErrorIs(t, <-twice, backend.ErrConflict)
	require.NoError(t, <-update)
	require.ErrorIs(t, <-late, backend.ErrConflict)
	require.NoError(t, <-other)
	require.NoError(t, <-gone)
	require.ErrorIs(t, <-missing, backend.ErrNotFound)
	require.Equal(t, [5]uint64{1, 0, 2, 0, 3}, versions)
	got, err := a.Get(t.Context(), changed.ID)
	require.NoError(t, err)
	require.Equal(t, changed.Body, got.Body)
	_, err = a.Get(t.Context(), record(2).ID)
	require.ErrorIs(t, err, backend.ErrNotFound)
	require.EqualValues(t, 2, a.Stats().Commits)
}

// If the commit fails, nothing that rests on it is written, and no refusal that rests on it
// is given.
func TestABatchOnTopOfACommitThatFails(t *testing.T) {
	var versions [2]uint64
	first := make(chan error, 1)
	a := behindACommit(t, func(s *badger.Store) {
		_, err := s.Put(context.Background(), record(1), backend.IfAbsent())
		first <- err
	})
	twice := a.then(t, a.put(record(1), backend.IfAbsent(), &versions[0]))
	other := a.then(t, a.put(record(2), backend.IfAbsent(), &versions[1]))
	a.FailCommits(errors.New("input/output error"))
	close(a.release)
	require.ErrorIs(t, <-first, backend.ErrIndeterminate)
	for _, answer := range []<-chan error{twice, other} {
		err := <-answer
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.NotErrorIs(t, err, backend.ErrConflict)
		require.NotErrorIs(t, err, backend.ErrIndeterminate)
	}
	require.Zero(t, a.Stats().Commits)
}

// Usage is added up over the two.
func TestUsageOnTopOfUsage(t *testing.T) {
	id := record(1).ID
	add := func(s *badger.Store, n uint64, last int64) error {
		return s.AddUsage(context.Background(), []backend.Usage{{ID: id, N: n, Last: last}})
	}
	first := make(chan error, 1)
	a := behindACommit(t, func(s *badger.Store) { first <- add(s, 3, 20) })
	second := a.then(t, func() error { return add(a.Store, 4, 10) })
	close(a.release)
	require.NoError(t, <-first)
	require.NoError(t, <-second)
	sums, err := a.Usage(t.Context(), []backend.ID{id})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: id, N: 7, Last: 20}}, sums)
}

// A batch that fails in the middle leaves nothing, also not to the batch after it.
func TestABatchOnTopOfOneThatIsNotWritten(t *testing.T) {
	var versions [3]uint64
	first := make(chan error, 1)
	a := behindACommit(t, func(s *badger.Store) {
		var err error
		versions[0], err = s.Put(context.Background(), record(1), backend.IfAbsent())
		first <- err
	})
	var bad atomic.Bool
	bad.Store(true)
	a.OnApplied(func() error {
		if bad.Load() {
			return errors.New("input/output error")
		}
		return nil
	})
	broken := a.then(t, a.put(record(2), backend.IfAbsent(), &versions[1]))
	a.release <- struct{}{}
	require.NoError(t, <-first)
	<-a.busy // with what is broken
	bad.Store(false)
	again := a.then(t, a.put(record(2), backend.IfAbsent(), &versions[2]))
	close(a.release)
	require.ErrorIs(t, <-broken, backend.ErrUnavailable)
	require.NoError(t, <-again)
	require.Equal(t, [3]uint64{1, 0, 2}, versions)
}
