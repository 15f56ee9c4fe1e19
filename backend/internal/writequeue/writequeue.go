// Package writequeue hands the writes of many callers to the one goroutine of a store
// that commits them, and folds those that wait at the same time into one transaction, so
// that they share one sync of the disk. It is for engines in which one transaction holds
// the writes of many callers and each of them gets an answer of its own.
package writequeue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
)

// Op is one write on its way to the writer; T is the transaction in the making. Set the
// first four fields before Submit, and use an Op once.
type Op[T any] struct {
	// Apply makes the change in the transaction. An error for which Refused holds changes
	// nothing and fails this Op only. It runs in the writer's goroutine, perhaps after
	// Submit has returned, and may be called again after the transaction was rolled back.
	Apply func(T) error
	// Size is how many bytes it may add, roughly.
	Size int
	// Alone says that it is long enough to be a transaction by itself.
	Alone bool
	// Urgent says that it ends something or makes room: it may use the reserve on a full
	// disk. The queue passes it on and does nothing with it.
	Urgent bool

	// Err is the answer to the caller. Only the writer sets it, before its commit returns.
	Err error

	// state settles who has the Op when its caller gives up: cancelled while it is still
	// queued it surely was not applied.
	state     atomic.Uint32
	submitted time.Time
	done      chan struct{}
}

const (
	queued = iota
	taken
	cancelled
)

// Submitted is when the Op came into the queue, on the monotonic clock.
func (o *Op[T]) Submitted() time.Time { return o.submitted }

// Take makes the Op the writer's: from then on its caller waits for Err. It reports false
// if the caller has given up, or if it was taken before; what it gave up is not applied.
func (o *Op[T]) Take() bool { return o.state.CompareAndSwap(queued, taken) }

// GivenUp reports whether the caller has given up before the Op was taken.
func (o *Op[T]) GivenUp() bool { return o.state.Load() == cancelled }

// Refused reports whether an Op's error is an answer, and not a failure of the engine.
func Refused(err error) bool {
	return errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrNotFound) ||
		errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrCorrupt)
}

// commitPatience is how long a caller whose context has ended still waits for a
// commit under way: the outcome is worth it, a disk that hangs is not.
const commitPatience = time.Second

// maxBytes is the most that one transaction adds, by the Size of its Ops.
const maxBytes = 1 << 20

// Queue is the Ops that wait for one writer. Make one with New.
type Queue[T any] struct {
	gate *calls.Gate
	most int
	ops  chan *Op[T]
}

// New makes an empty Queue for a store whose calls go through gate. A transaction takes
// at most most Ops, and as many can wait before Submit has to wait for a place.
func New[T any](gate *calls.Gate, most int) *Queue[T] {
	return &Queue[T]{gate: gate, most: most, ops: make(chan *Op[T], most)}
}

// Waiting is how many Ops wait for the writer.
func (q *Queue[T]) Waiting() int { return len(q.ops) }

// Submit hands an Op to the writer and returns its answer. If ctx ends before the Op was
// taken, it fails with the context's error alone, and the Op surely was not applied. If
// ctx ends later, it waits for the commit under way for one second more, and then fails
// with backend.ErrIndeterminate; nothing of the Op may be read then. It is safe for
// concurrent use, and fails with backend.ErrClosed once the store is being closed.
func (q *Queue[T]) Submit(ctx context.Context, o *Op[T]) error {
	if err := q.gate.Enter(ctx); err != nil {
		return err
	}
	o.done = make(chan struct{})
	o.submitted = time.Now()
	select {
	case q.ops <- o:
		q.gate.Leave()
	case <-ctx.Done():
		q.gate.Leave()
		return q.gate.Ended(ctx.Err())
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.state.CompareAndSwap(queued, cancelled) {
			return q.gate.Ended(ctx.Err())
		}
		// It is being committed, which takes as long as the disk does.
		t := time.NewTimer(commitPatience)
		defer t.Stop()
		select {
		case <-o.done:
		case <-t.C:
			return q.gate.Ended(fmt.Errorf("%w: %w", backend.ErrIndeterminate, ctx.Err()))
		}
	}
	return o.Err
}

// Run is the writer's goroutine. It calls begin for an Op that nobody has taken yet; what
// comes while begin waits goes into the same transaction. If begin fails, its error is
// the Op's answer. Then it calls commit with what goes together, which sets the Err of
// each; nothing is waited for to make that more. It returns when stop is closed and what
// was accepted before is answered: close stop after Close of the gate.
func (q *Queue[T]) Run(stop <-chan struct{}, begin func(*Op[T]) error, commit func([]*Op[T])) {
	var held *Op[T] // out of the queue, but too much for the transaction before
	for {
		first := held
		if held = nil; first == nil {
			if first = q.next(stop); first == nil {
				return
			}
		}
		if err := begin(first); err != nil {
			first.Err = err
			close(first.done)
			continue
		}
		var ops []*Op[T]
		ops, held = q.fold(first, &share{})
		commit(ops)
		tell(ops)
	}
}

// next waits for an Op. It returns nil when stop is closed and the queue is empty.
func (q *Queue[T]) next(stop <-chan struct{}) *Op[T] {
	select {
	case o := <-q.ops:
		return o
	case <-stop:
	}
	select {
	case o := <-q.ops: // accepted before stop was closed: it is answered
		return o
	default:
		return nil
	}
}

// share is what a transaction has of the bounds.
type share struct{ n, size int }

// fold takes first and what waits and goes into one transaction with it, which has s of
// the bounds already. held is an Op that it took and that does not go with the others.
func (q *Queue[T]) fold(first *Op[T], s *share) (ops []*Op[T], held *Op[T]) {
	for next := first; ; {
		if s.n > 0 && (next.Alone || s.size+next.Size > maxBytes) {
			return ops, next
		}
		ops, s.n, s.size = append(ops, next), s.n+1, s.size+next.Size
		if next.Alone || s.n >= q.most {
			return ops, nil
		}
		select {
		case next = <-q.ops:
		default:
			return ops, nil
		}
	}
}
