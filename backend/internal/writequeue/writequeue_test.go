package writequeue_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/writequeue"
	"github.com/stretchr/testify/require"
)

type op = writequeue.Op[int]

// store is a writer that notes how many Ops each transaction had.
type store struct {
	gate    calls.Gate
	queue   *writequeue.Queue[int]
	stop    chan struct{}
	hold    chan struct{} // a commit waits for it
	batches []int
	begin   func(*op) error
}

func newStore(most int) *store {
	s := &store{gate: calls.Gate{Engine: "test"}, stop: make(chan struct{}), hold: make(chan struct{})}
	s.queue = writequeue.New[int](&s.gate, most)
	s.begin = func(*op) error { return nil }
	return s
}

func (s *store) run() {
	s.queue.Run(s.stop, func(o *op) error { return s.begin(o) }, func(ops []*op) {
		live := ops[:0:0]
		for _, o := range ops {
			if o.Take() {
				live = append(live, o)
			}
		}
		<-s.hold
		for _, o := range live {
			o.Err = o.Apply(0)
		}
		s.batches = append(s.batches, len(live))
	})
}

// submit submits ops in order, each in a goroutine of its own, and returns their answers.
func (s *store) submit(ctx context.Context, ops ...*op) (answers []error, wait func()) {
	var done sync.WaitGroup
	answers = make([]error, len(ops))
	for i, o := range ops {
		if o.Apply == nil {
			o.Apply = func(int) error { return nil }
		}
		done.Go(func() { answers[i] = s.queue.Submit(ctx, o) })
		synctest.Wait()
	}
	return answers, done.Wait
}

func TestWhatWaitsIsFolded(t *testing.T) {
	for name, c := range map[string]struct {
		ops  []*op // the first is taken at once, the others wait meanwhile
		want []int
	}{
		"all that waits":        {[]*op{{}, {}, {}, {}}, []int{1, 3}},
		"at most so many":       {[]*op{{}, {}, {}, {}, {}, {}}, []int{1, 4, 1}},
		"at most so many bytes": {[]*op{{}, {Size: 1 << 20}, {Size: 1}, {}}, []int{1, 1, 2}},
		"alone first":           {[]*op{{}, {Alone: true}, {}, {}}, []int{1, 1, 2}},
		"alone between":         {[]*op{{}, {}, {Alone: true}, {}}, []int{1, 1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(4)
				go s.run()
				answers, wait := s.submit(t.Context(), c.ops...)
				close(s.hold)
				wait()
				for _, err := range answers {
					require.NoError(t, err)
				}
				s.gate.Close()
				close(s.stop)
				synctest.Wait()
				require.Equal(t, c.want, s.batches)
			})
		})
	}
}

func TestEachHasItsOwnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(4)
		locked := errors.New("locked")
		bad := &op{}
		s.begin = func(o *op) error {
			if o == bad {
				return locked
			}
			return nil
		}
		go s.run()
		answers, wait := s.submit(t.Context(), &op{}, bad, &op{Apply: func(int) error { return backend.ErrConflict }}, &op{})
		close(s.hold)
		wait()
		require.Equal(t, []error{nil, locked, backend.ErrConflict, nil}, answers)
		s.gate.Close()
		close(s.stop)
	})
}

func TestWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(4)
		go s.run()
		ctx, cancel := context.WithCancel(t.Context())
		applied := 0
		count := func(int) error { applied++; return nil }
		first, queued := &op{Apply: count}, &op{Apply: count}
		answers, wait := s.submit(ctx, first, queued)
		cancel()
		wait() // the commit of the first hangs: its caller waits for a second
		require.ErrorIs(t, answers[0], backend.ErrIndeterminate)
		require.EqualError(t, answers[0], "test: backend: outcome unknown: context canceled")
		require.False(t, first.GivenUp())
		require.EqualError(t, answers[1], "test: context canceled")
		require.True(t, queued.GivenUp())
		close(s.hold)
		synctest.Wait()
		require.Equal(t, 1, applied, "what was given up in the queue is not applied")
		s.gate.Close()
		close(s.stop)
	})
}

func TestWhatWasAcceptedIsAnsweredAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(4)
		answers, wait := s.submit(t.Context(), &op{}, &op{}, &op{}) // no writer yet
		require.Equal(t, 3, s.queue.Waiting())
		s.gate.Close()
		close(s.stop)
		close(s.hold)
		s.run()
		wait()
		require.Equal(t, []error{nil, nil, nil}, answers)
		require.ErrorIs(t, s.queue.Submit(t.Context(), &op{}), backend.ErrClosed)
	})
}

func TestRefused(t *testing.T) {
	require.True(t, writequeue.Refused(backend.ErrConflict))
	require.False(t, writequeue.Refused(backend.ErrUnavailable))
	require.False(t, writequeue.Refused(nil))
}
