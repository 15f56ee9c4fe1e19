package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

var errEnough = errors.New("enough")

// batchOf is the first Batch after a token.
func batchOf(t *testing.T, s *sqlite.Store, from backend.Token) (b backend.Batch) {
	t.Helper()
	err := s.Watch(t.Context(), from, func(got backend.Batch) error {
		b = got
		return errEnough
	})
	require.ErrorIs(t, err, errEnough)
	return b
}

func create(t *testing.T, s *sqlite.Store, from, to uint64) {
	t.Helper()
	for i := from; i < to; i++ {
		_, err := s.Put(t.Context(), record(i), backend.IfAbsent())
		require.NoError(t, err)
	}
}

// A file that is restored from a copy has lost what came after the copy, and
// nobody who has seen that goes on as if it were there: neither while the restored
// file is behind, nor when it has been written to beyond that place.
func TestAFileRestoredFromACopy(t *testing.T) {
	dir := t.TempDir()
	file, copied := filepath.Join(dir, "fob.db"), filepath.Join(dir, "copy.db")
	s := open(t, file, sqlite.Options{})
	create(t, s, 0, 5)
	early := batchOf(t, s, nil).Token
	create(t, s, 5, 10)
	execute(t, pool(t, "file:"+file), "VACUUM INTO ?", copied)
	atCopy := batchOf(t, s, nil).Token
	create(t, s, 10, 15)
	late := batchOf(t, s, nil).Token
	require.NoError(t, s.Close())
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(file + suffix)
	}
	require.NoError(t, os.Rename(copied, file))

	s = open(t, file, sqlite.Options{})
	for _, more := range []uint64{0, 5, 5} { // behind, level, and ahead
		if more > 0 {
			create(t, s, 100, 100+more)
			for i := 100; i < 100+int(more); i++ {
				rec, err := s.Get(t.Context(), record(uint64(i)).ID)
				require.NoError(t, err)
				require.NoError(t, s.Delete(t.Context(), rec.ID, rec.Version))
			}
		}
		require.True(t, batchOf(t, s, late).Reset)
		b := batchOf(t, s, early)
		require.False(t, b.Reset)
		require.GreaterOrEqual(t, len(b.Changes), 5)
		require.False(t, batchOf(t, s, atCopy).Reset)
	}
}

// The same under a Watch that goes on.
func TestHistoryThatIsReplacedUnderAWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{})
	create(t, s, 0, 3)
	db := pool(t, "file:"+file)
	batches := 0
	err := s.Watch(t.Context(), nil, func(b backend.Batch) error {
		if batches++; batches == 1 {
			execute(t, db, "UPDATE fob_change SET nonce = nonce + 1 WHERE seq = (SELECT max(seq) FROM fob_change)")
		}
		if b.Reset {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	execute(t, db, "DELETE FROM fob_change") // by somebody who wanted the space
	before, err := s.Get(t.Context(), record(2).ID)
	require.NoError(t, err)
	b := batchOf(t, s, nil)
	v, err := s.Put(t.Context(), record(3), backend.IfAbsent())
	require.NoError(t, err)
	require.Greater(t, v, before.Version, "versions rise all the same")
	require.True(t, batchOf(t, s, b.Token).Reset)
}

func TestTheFeedIsTrimmed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{})
	s.Keep(50)
	create(t, s, 0, 40)
	old := batchOf(t, s, nil).Token
	create(t, s, 40, 80)
	recent := batchOf(t, s, nil).Token
	require.False(t, batchOf(t, s, old).Reset, "40 changes ago")
	create(t, s, 80, 120)
	var n int
	require.NoError(t, pool(t, "file:"+file).QueryRow("SELECT count(*) FROM fob_change").Scan(&n))
	require.Equal(t, 50, n)
	require.True(t, batchOf(t, s, old).Reset)
	b := batchOf(t, s, recent)
	require.False(t, b.Reset)
	require.Len(t, b.Changes, 40)
}

// More than fits into a Batch comes in several, of which only the last proves
// anything new.
func TestALongHistoryComesInParts(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	start := batchOf(t, s, nil).Token
	s.AtMost(100)
	const n = 250
	create(t, s, 0, n)
	seen, parts := map[backend.ID]bool{}, 0
	err := s.Watch(t.Context(), start, func(b backend.Batch) error {
		require.False(t, b.Reset)
		parts++
		for _, c := range b.Changes {
			seen[c.ID] = true
		}
		if len(seen) < n {
			require.True(t, b.AsOf.IsZero(), "more is to come")
			return nil
		}
		require.False(t, b.AsOf.IsZero())
		return errEnough
	})
	require.ErrorIs(t, err, errEnough)
	require.Equal(t, 3, parts)
}

// What another process commits just after a look is not claimed by that look, and
// is not overlooked by the next.
func TestACommitJustAfterALook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s, other := open(t, file, sqlite.Options{}), open(t, file, sqlite.Options{})
	var committed time.Time
	looks := 0
	s.OnLook(func() {
		if looks++; looks == 1 {
			create(t, other, 0, 1)
			committed = time.Now()
		}
	})
	err := s.Watch(t.Context(), nil, func(b backend.Batch) error {
		if len(b.Changes) > 0 {
			require.Equal(t, record(0).ID, b.Changes[0].ID)
			return errEnough
		}
		require.True(t, b.AsOf.Before(committed), "a Batch claims what it did not see")
		return nil
	})
	require.ErrorIs(t, err, errEnough)
}
