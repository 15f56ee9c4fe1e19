package writequeue_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/writequeue"
	"github.com/stretchr/testify/require"
)

// transaction is what RunAhead hands about here: its number, and that of the one behind it.
type transaction struct{ number, behind, applied int }

type aheadOp = writequeue.Op[*transaction]

// aheadStore is a writer that evaluates ahead and notes what it does.
type aheadStore struct {
	gate  calls.Gate
	queue *writequeue.Queue[*transaction]
	stop  chan struct{}
	hold  chan struct{} // each commit takes one
	opens int
	notes []string
}

func (s *aheadStore) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func newAheadStore(most int) *aheadStore {
	s := &aheadStore{gate: calls.Gate{Engine: "test"}, stop: make(chan struct{}), hold: make(chan struct{})}
	s.queue = writequeue.New[*transaction](&s.gate, most)
	go s.queue.RunAhead(s.stop, writequeue.Ahead[*transaction]{
		Open: func(behind *transaction) *transaction {
			s.opens++
			b := &transaction{number: s.opens}
			if behind != nil {
				b.behind = behind.number
			}
			return b
		},
		Apply: func(b *transaction, ops []*aheadOp) {
			s.note("apply %d to %d behind %d", len(ops), b.number, b.behind)
			b.applied += len(ops)
			for _, o := range ops {
				o.Take()
			}
		},
		Commit: func(b *transaction, ops []*aheadOp) {
			<-s.hold
			s.note("commit %d with %d of %d", b.number, len(ops), b.applied)
		},
		Drop: func(b *transaction) {
			if b.applied > 0 {
				s.note("dropped %d, with %d", b.number, b.applied)
			}
		},
	})
	return s
}

func TestWhatComesDuringACommitIsEvaluatedMeanwhile(t *testing.T) {
	const most = 3
	put, alone, small, large := &aheadOp{}, &aheadOp{Alone: true}, &aheadOp{Size: 1}, &aheadOp{Size: 1 << 20}
	var end *aheadOp // in place of an Op: a commit ends
	for name, c := range map[string]struct {
		steps []*aheadOp
		want  []string
	}{
		"nothing comes": {[]*aheadOp{put, end, put, end}, []string{
			"apply 1 to 1 behind 0", "commit 1 with 1 of 1", "apply 1 to 3 behind 0", "commit 3 with 1 of 1",
		}},
		"two come one by one": {[]*aheadOp{put, put, put, end, end}, []string{
			"apply 1 to 1 behind 0", "apply 1 to 2 behind 1", "apply 1 to 2 behind 1", "commit 1 with 1 of 1", "commit 2 with 2 of 2",
		}},
		"more than fit": {[]*aheadOp{put, put, put, put, put, end, end, end}, []string{
			"apply 1 to 1 behind 0", "apply 1 to 2 behind 1", "apply 1 to 2 behind 1", "apply 1 to 2 behind 1", "commit 1 with 1 of 1",
			"apply 1 to 3 behind 2", "commit 2 with 3 of 3", "commit 3 with 1 of 1",
		}},
		"more bytes than fit": {[]*aheadOp{put, put, large, small, end, end, end}, []string{
			"apply 1 to 1 behind 0", "apply 1 to 2 behind 1", "apply 1 to 2 behind 1", "commit 1 with 1 of 1",
			"apply 1 to 3 behind 2", "commit 2 with 2 of 2", "commit 3 with 1 of 1",
		}},
		"alone": {[]*aheadOp{put, alone, put, end, end, end}, []string{
			"apply 1 to 1 behind 0", "commit 1 with 1 of 1", "apply 1 to 3 behind 0", "apply 1 to 4 behind 3", "commit 3 with 1 of 1", "commit 4 with 1 of 1",
		}},
		"alone behind another": {[]*aheadOp{put, put, alone, put, end, end, end, end}, []string{
			"apply 1 to 1 behind 0", "apply 1 to 2 behind 1", "commit 1 with 1 of 1", "commit 2 with 1 of 1",
			"apply 1 to 4 behind 0", "apply 1 to 5 behind 4", "commit 4 with 1 of 1", "commit 5 with 1 of 1",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newAheadStore(most)
				given, answered := 0, make(chan error, len(c.steps))
				for _, step := range c.steps {
					if step == end {
						s.hold <- struct{}{}
						synctest.Wait()
						continue
					}
					given++
					o := &aheadOp{Alone: step.Alone, Size: step.Size}
					go func() { answered <- s.queue.Submit(t.Context(), o) }()
					synctest.Wait()
				}
				for range given {
					require.NoError(t, <-answered)
				}
				require.Equal(t, c.want, s.notes)
				s.gate.Close()
				close(s.stop)
			})
		})
	}
}
