package fob

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
)

// demand is how current the answer to a verification has to be.
type demand uint8

const (
	cached demand = iota // as Config.MaxStaleness says
	fresh                // read from the store during the call
)

// query is one verification that memory could not answer.
type query struct {
	how       demand
	now       clock.Moment
	form      int // index of a native key's prefix, or foreignForm, or tokenForm
	presented string
	seen      Digest
	at        cache.Key // where the answer is remembered
	id        ID        // of a native key

	pins pins // what the load reads

	old *answer // what memory has, if it is too old to be believed
}

// The forms of what is presented besides a native key.
const (
	foreignForm = -1
	tokenForm   = -2
)

type flightKey struct {
	seen Digest
	form int
}

// findOut answers what memory could not.
func (m *Manager) findOut(ctx context.Context, q *query) (Credential, error) {
	e, err := m.find(ctx, q)
	if err != nil {
		return nil, err
	}
	// It may have expired while it was waited for. What has no time needs no other look at
	// the clock.
	ms := q.now.MS
	if e.from != 0 || e.to != clock.Forever {
		ms = m.clock.Now().MS
	}
	return m.answer(e, ms, false)
}

func (m *Manager) find(ctx context.Context, q *query) (*answer, error) {
	if q.how == fresh {
		return m.load(ctx, q)
	}
	if err := m.knownAbsent(q); err != nil {
		m.answers.refusedAbsent.Add(1)
		return nil, err
	}
	if q.old == nil {
		return m.collapse(ctx, q)
	}
	m.answers.rechecked.Add(1)
	if m.cfg.StaleIfError == 0 {
		return m.collapse(ctx, q)
	}
	return m.findOrStale(ctx, q)
}

// findOrStale is find where an old answer does if the store fails.
func (m *Manager) findOrStale(ctx context.Context, q *query) (*answer, error) {
	if q.now.Age(m.answers.outage.Load()) < int64(staleRetry) {
		if old := m.lastResort(q); old != nil {
			return old, nil
		}
	}
	short, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	e, err := m.collapse(short, q)
	if err == nil || ctx.Err() != nil || !errs.IsOutage(err) {
		return e, err
	}
	m.answers.outage.Store(q.now.Mono)
	if old := m.lastResort(q); old != nil {
		return old, nil
	}
	if short.Err() != nil { // it was only waited for too shortly
		return m.collapse(ctx, q)
	}
	return nil, err
}

// lastResort is the answer in memory, if Config.StaleIfError lets it be given
// although the store cannot be asked. It is looked up anew: a revocation that was
// made here or told by the feed has ended it.
func (m *Manager) lastResort(q *query) *answer {
	now := m.moment()
	e, ok := m.answers.of(q.form).Get(q.at, now.Mono)
	if !ok || e != q.old {
		return nil
	}
	e.confirm(now)
	if !m.within(m.cfg.patience(), atomic.LoadInt64(&e.asOf), now) {
		return nil
	}
	m.answers.stale.Add(1)
	return e
}

// load finds the answer out, from the store. What is found to have changed is read once
// more, for the answer that was made while that was found is not remembered.
func (m *Manager) load(ctx context.Context, q *query) (*answer, error) {
	e, differs, err := m.loadOnce(ctx, q)
	if differs && q.how == cached && outage(err) == nil {
		if again, _, err := m.loadOnce(ctx, q); outage(err) == nil {
			return again, err
		}
	}
	return e, err
}

func (m *Manager) loadOnce(ctx context.Context, q *query) (e *answer, differs bool, err error) {
	defer func() { differs = m.newest.release(&q.pins) }()
	e, err = m.look(ctx, q)
	return e, false, err
}

// outage is the error of a load that could not be made, or nil.
func outage(err error) error {
	if errors.Is(err, ErrRejected) {
		return nil
	}
	return err
}

// look reads what there is.
func (m *Manager) look(ctx context.Context, q *query) (*answer, error) {
	switch q.form {
	case tokenForm:
		return m.loadToken(ctx, q)
	case foreignForm:
		return m.loadForeign(ctx, q)
	}
	return m.loadKey(ctx, q)
}
