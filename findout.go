package fob

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
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

	// What memory has, if it is too old to be believed.
	oldKey   *keyEntry
	oldToken *tokenEntry
}

// The forms of what is presented besides a native key.
const (
	foreignForm = -1
	tokenForm   = -2
)

// found is what a load found out. Exactly one of its fields is set.
type found struct {
	key   *keyEntry
	token *tokenEntry
	err   error
}

// outage is the error of a load that could not be made, or nil.
func (f *found) outage() error {
	if f.err == nil || errors.Is(f.err, ErrRejected) {
		return nil
	}
	return f.err
}

type flightKey struct {
	seen Digest
	form int
}

// answer is what was found, as of now: it may have expired while it was waited for. ms
// is when that began, which does for what has no time.
func (m *Manager) answer(f *found, ms int64) (Credential, error) {
	if f.err != nil {
		return nil, f.err
	}
	if f.token != nil {
		ms = m.clock.Now().MS
		cred, err := f.token.answer(ms)
		if err == nil {
			m.tokenUsed(f.token, ms, false)
		}
		return cred, err
	}
	if f.key.from != 0 || f.key.to != clock.Forever {
		ms = m.clock.Now().MS
	}
	if ms < f.key.from || ms >= f.key.to {
		return nil, f.key.refusal(ms)
	}
	m.usage.Count(backend.ID(f.key.key.id), ms)
	return f.key.key, nil
}

// findOut answers what memory could not.
func (m *Manager) findOut(ctx context.Context, q *query) (Credential, error) {
	if q.how == fresh {
		f := m.load(ctx, q)
		return m.answer(&f, q.now.MS)
	}
	if err := m.knownAbsent(q); err != nil {
		m.answers.refusedAbsent.Add(1)
		return nil, err
	}
	stale := m.cfg.StaleIfError > 0 && (q.oldKey != nil || q.oldToken != nil)
	if q.oldKey != nil || q.oldToken != nil {
		m.answers.rechecked.Add(1)
	}
	if !stale {
		f := m.collapse(ctx, q)
		return m.answer(&f, q.now.MS)
	}
	if q.now.Age(m.answers.outage.Load()) < int64(staleRetry) {
		if f, ok := m.lastResort(q); ok {
			return m.answer(&f, q.now.MS)
		}
	}
	short, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	f := m.collapse(short, q)
	if f.err != nil && ctx.Err() == nil && errs.IsOutage(f.err) {
		m.answers.outage.Store(q.now.Mono)
		if old, ok := m.lastResort(q); ok {
			return m.answer(&old, q.now.MS)
		}
		if short.Err() != nil { // it was only waited for too shortly
			f = m.collapse(ctx, q)
		}
	}
	return m.answer(&f, q.now.MS)
}

// lastResort is the answer in memory, if Config.StaleIfError lets it be given
// although the store cannot be asked. It is looked up anew: a revocation that was
// made here or told by the feed has ended it.
func (m *Manager) lastResort(q *query) (f found, ok bool) {
	now := m.moment()
	var asOf int64
	switch {
	case q.oldKey != nil:
		e, ok := m.answers.keys.Get(q.at, now.Mono)
		if !ok || e != q.oldKey {
			return found{}, false
		}
		e.confirm(now)
		f.key, asOf = e, atomic.LoadInt64(&e.asOf)
	default:
		e, ok := m.answers.tokens.Get(q.at, now.Mono)
		if !ok || e != q.oldToken {
			return found{}, false
		}
		e.confirm(now)
		f.token, asOf = e, atomic.LoadInt64(&e.asOf)
	}
	if !m.within(m.cfg.patience(), asOf, now) {
		return found{}, false
	}
	m.answers.stale.Add(1)
	return f, true
}

// load finds the answer out, from the store. What is found to have changed is read once
// more, for the answer that was made while that was found is not remembered.
func (m *Manager) load(ctx context.Context, q *query) found {
	f, differs := m.loadOnce(ctx, q)
	if differs && q.how == cached && f.outage() == nil {
		if again, _ := m.loadOnce(ctx, q); again.outage() == nil {
			return again
		}
	}
	return f
}

func (m *Manager) loadOnce(ctx context.Context, q *query) (f found, differs bool) {
	defer func() { differs = m.newest.release(&q.pins) }()
	return m.look(ctx, q), false
}

// look reads what there is.
func (m *Manager) look(ctx context.Context, q *query) found {
	switch q.form {
	case tokenForm:
		return m.loadToken(ctx, q)
	case foreignForm:
		return m.loadForeign(ctx, q)
	}
	return m.loadKey(ctx, q)
}
