package sqlite_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

func TestWhenAWatchLooks(t *testing.T) {
	const poll, proof = 20 * time.Millisecond, 500 * time.Millisecond
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	// looks are the times of so many looks from one on, in milliseconds. Each proves.
	looks := func(p *sqlite.Pace, from, n int) (all []int) {
		for range n {
			from += int(p.Next(at(from), at(from)).Milliseconds())
			all = append(all, from)
		}
		return all
	}
	p := sqlite.NewPace(poll, proof)
	require.Equal(t, []int{500, 1000, 1500}, looks(p, 0, 3), "it sleeps")
	p.Heard(at(1500))
	require.Equal(t, []int{1502, 1506, 1514, 1530, 1550, 1570}, looks(p, 1500, 6), "a commit is on its way")
	p.Found(at(1570))
	require.Equal(t, []int{1590, 1610}, looks(p, 1570, 2), "and another may be")
	require.Equal(t, []int{3000, 3500}, looks(p, 2500, 2), "it sleeps again")
	require.Equal(t, 10*time.Millisecond, p.Next(at(3990), at(3500)), "no proof is late")

	p.Found(at(4000)) // of which nobody told
	require.Equal(t, []int{4020, 4040}, looks(p, 4000, 2))
	p.Heard(at(4050)) // a little late
	require.Equal(t, []int{6500, 7000}, looks(p, 6000, 2), "it was told of in the end")
	p.Found(at(7000))
	require.Equal(t, []int{9020, 9040}, looks(p, 9000, 2), "nobody tells any more")
	p.Heard(at(9040))
	require.Equal(t, []int{11020, 11040}, looks(p, 11000, 2), "and is not believed again")
}

// A Watch looks once for each proof while nobody writes to the file, also when somebody
// has.
func TestAWatchSleepsWhileNobodyWrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s, other := open(t, file, sqlite.Options{}), open(t, file, sqlite.Options{})
	if !s.Hears() {
		t.Log("the system does not tell of writes: it looks every PollEvery")
		return
	}
	var asked atomic.Int64
	s.OnAsk(func() { asked.Add(1) })
	const every = 500 * time.Millisecond
	next := uint64(0)
	// A machine on which a commit takes more than a second makes a Watch think that it is deaf.
	await.Until(t, "a Watch that sleeps, and does so again after a change", func() bool {
		var written, last time.Time
		looks, slept := int64(0), 0
		err := s.Watch(backend.WithProofEvery(t.Context(), every), nil, func(b backend.Batch) error {
			now, gap := asked.Load(), b.AsOf.Sub(last)
			once := now == looks+1
			looks, last = now, b.AsOf
			switch {
			case written.IsZero() && slept < 2:
				if slept++; slept > 1 && (!once || gap < every) {
					return errors.New("it did not sleep at first")
				}
			case written.IsZero():
				create(t, other, next, next+1)
				next++
				written, slept = time.Now(), 0
			case b.AsOf.Sub(written) > 2*time.Second: // which is longer than it stays awake
				if !once {
					return errors.New("it did not sleep again")
				}
				if slept++; slept == 2 {
					return errEnough
				}
			}
			return nil
		})
		return errors.Is(err, errEnough)
	})
}

// A Watch that hears nothing, though others write, tells of their changes when the next
// proof is due, claims nothing before, and looks all the time from then on.
func TestAWatchThatHearsNothingNotices(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fob.db")
	s, other := open(t, file, sqlite.Options{}), open(t, file, sqlite.Options{})
	s.ListenTo(dir + "/fob.db") // to which nobody writes, for the log is far from full
	var asked atomic.Int64
	s.OnAsk(func() { asked.Add(1) })
	var committed time.Time
	batches, looks := 0, int64(0)
	err := s.Watch(backend.WithProofEvery(t.Context(), 500*time.Millisecond), nil, func(b backend.Batch) error {
		switch batches++; {
		case batches == 1:
			create(t, other, 0, 1)
			committed = time.Now()
		case batches == 2:
			require.Len(t, b.Changes, 1, "nothing is claimed before it is told")
			require.True(t, b.AsOf.After(committed))
		case b.AsOf.Sub(committed) > 2*time.Second: // enough to know that nobody tells
			require.Greater(t, asked.Load()-looks, int64(1), "looks for one proof")
			return errEnough
		}
		looks = asked.Load()
		return nil
	})
	require.ErrorIs(t, err, errEnough)
}
