package backendtest

import (
	"fmt"

	"github.com/fobkit/fob/backend"
)

// Batches lets the suite into a store that makes one transaction of the operations
// that wait. Its functions are called before anything else is done with the store.
type Batches struct {
	// OnBatch has f called when a batch is taken and before it is evaluated; the store
	// does not go on until f returns.
	OnBatch func(f func())
	// OnApplied has f called after each operation of a batch that has succeeded; where
	// it returns an error, the engine has failed at that operation.
	OnApplied func(f func() error)
	// Waiting is how many operations wait for the next batch.
	Waiting func() int
}

// An answer must not rest on what was not done: where a batch fails, what a later
// operation was told of an earlier one's change is not so.
func checkFailedBatch(p *probe) {
	if p.opts.Batches == nil {
		p.Logf("the store makes no batches: Options.Batches is not set")
		return
	}
	old := sample(1)
	changed, mine, moved := old, sample(2), old
	changed.Body, moved.Owner = []byte("changed"), "another"
	put := func(rec backend.Record, cond func(v uint64) backend.Cond) func(*probe, uint64) error {
		return func(p *probe, v uint64) error {
			_, err := p.store.Put(p.ctx, rec, cond(v))
			return err
		}
	}
	remove := func(p *probe, v uint64) error { return p.store.Delete(p.ctx, old.ID, v) }
	absent := func(uint64) backend.Cond { return backend.IfAbsent() }
	for _, c := range []struct {
		name          string
		first, second func(*probe, uint64) error
		succeed       int // of the two
	}{
		{"a Put over what was deleted", remove, put(changed, backend.IfVersion), 1},
		{"a Put over what was changed", put(changed, backend.IfVersion), put(changed, backend.IfVersion), 1},
		{"a Put of what is immutable over what was deleted", remove, put(moved, backend.IfVersion), 1},
		{"a Put of what was made", put(mine, absent), put(mine, absent), 1},
		{"a Put in place of what was deleted", remove, put(changed, absent), 2},
		{"a Delete of what was changed", put(changed, backend.IfVersion), remove, 1},
		{"a Delete of what was deleted", remove, remove, 1},
	} {
		p.failBatch(c.name, c.succeed, c.first, c.second)
	}
}

// failBatch makes one batch of the two operations and a third, at which it fails.
func (p *probe) failBatch(name string, succeed int, first, second func(*probe, uint64) error) {
	p.Helper()
	s, discard := p.another()
	defer discard()
	q := *p
	q.store = s
	hooks := p.opts.Batches(p.t, s)
	var (
		taken, release = make(chan struct{}), make(chan struct{})
		batches, done  int // the writer's
	)
	const held = 2 // the first batch makes the record, the second holds up the writer
	hooks.OnBatch(func() {
		if batches++; batches == held {
			close(taken)
			<-release
		}
	})
	hooks.OnApplied(func() error {
		if batches <= held {
			return nil
		}
		if done++; done == succeed+1 {
			return fmt.Errorf("%w: the third operation of the batch", ErrInjected)
		}
		return nil
	})
	rec := q.create(sample(1))
	answers := make([]chan error, 4)
	start := func(i int, do func(*probe, uint64) error) {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- do(&q, rec.Version) }()
	}
	other := func(n int) func(*probe, uint64) error {
		return func(q *probe, _ uint64) error {
			_, err := q.store.Put(q.ctx, sample(n), backend.IfAbsent())
			return err
		}
	}
	start(0, other(10))
	if !p.waited(taken) {
		p.broken("no batch was taken for a Put within %v", p.opts.Patience)
	}
	for i, do := range []func(*probe, uint64) error{first, second, other(11)} {
		start(i+1, do)
		if !p.eventually(func() bool { return hooks.Waiting() == i+1 }) {
			p.broken("an operation did not come to wait within %v", p.opts.Patience)
		}
	}
	close(release)
	q.answers(<-answers[0], nil, "%s: the batch before", name)
	for i := 1; i < len(answers); i++ {
		q.answers(<-answers[i], backend.ErrUnavailable, "%s: operation %d of a batch that failed at the third", name, i)
	}
	q.holds(rec)
	for _, n := range []int{2, 11} {
		q.lacks(sample(n).ID)
	}
}
