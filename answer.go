package fob

import (
	"context"
	"errors"
	"time"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/usagelog"
)

// answer is what memory holds of one credential that was found.
type answer = engine.Answer[body]

// query is one verification that memory could not answer at once.
type query = engine.Query[body]

// body is what an answer says of a credential, and at which time.
type body struct {
	// from and to bound the time in which it is accepted: from <= now < to, in Unix
	// milliseconds. Where they are equal it never is.
	from, to int64
	use      usagelog.Cell // of a key
	refused  error         // why it is not accepted whatever the time

	key *Key // nil for a token

	token  *Token       // what is answered: the claims, as far as the key allows them
	claims *Token       // what was sealed; token itself, unless the key allows less
	parent *parentState // the key that it came from; nil if from none
}

// at is what b says at an instant, where nobody counts its use.
func (b *body) at(ms int64) (Credential, error) {
	if ms < b.from || ms >= b.to {
		return nil, b.refusal(ms)
	}
	return b.credential(), nil
}

func (b *body) credential() Credential {
	if b.key != nil {
		return b.key
	}
	return b.token
}

// cell is where uses are counted: those of a token are its key's.
func (b *body) cell() *usagelog.Cell {
	switch {
	case b.key != nil:
		return &b.use
	case b.parent != nil:
		return &b.parent.use
	}
	return nil
}

// refusal is why b is not accepted at an instant that lies outside of its bounds. Of a token
// its key is asked first, which knows why it ended.
func (b *body) refusal(ms int64) error {
	switch {
	case b.refused != nil:
		return b.refused
	case b.key != nil:
		return b.key.state.Refusal(ms)
	case b.parent != nil:
		if err := b.parent.key.state.Refusal(ms); err != nil {
			return err
		}
	}
	if ms < b.from {
		return ErrNotYetValid
	}
	return ErrExpired
}

// sizeOfAnswer is the memory that an answer takes beside itself, in bytes. The key of a
// token is shared, as a rule, which is nothing to rely on.
func sizeOfAnswer(a *answer) int {
	b := &a.Body
	if b.key != nil {
		return b.key.size()
	}
	n := b.claims.size()
	if b.parent != nil {
		n += int(unsafe.Sizeof(*b.parent)) + b.parent.key.size()
	}
	if b.token != b.claims {
		n += b.token.size()
	}
	return n
}

// rehashedEntries bounds of how many keys it is known that they were lately rehashed.
const rehashedEntries = 1024

// detachedLoads bounds how many loads go on although their callers have left.
const detachedLoads = 64

// makeMemory makes everything that remembers.
func (m *Manager) makeMemory() (err error) {
	m.engine, err = engine.New[body](engine.Config{
		MaxStaleness: m.cfg.MaxStaleness, StaleIfError: m.cfg.StaleIfError, Expected: fleet.DefaultStaleness,
		Entries: m.cfg.CacheEntries, Bytes: m.cfg.CacheBytes,
		Clock: &m.clock, Running: m.life.Context(), Hold: m.life.Limit(detachedLoads).Hold,
		Failed: func(err error) { m.report(Event{Type: EventUpkeepFailed, Err: err}) },
	})
	if err != nil {
		return err
	}
	var errs [5]error
	m.subjects, errs[0] = engine.AddPart[subjectState](m.engine, nil)
	m.keys, errs[1] = m.engine.AddMemory(sizeOfAnswer, true)
	m.rehashed, errs[2] = cache.New(cache.Config[struct{}]{Entries: min(m.cfg.CacheEntries, rehashedEntries)})
	if m.cfg.Tokens != nil {
		m.parents, errs[3] = engine.AddPart(m.engine, func(p *parentState) int { return p.key.size() })
		m.accessTokens, errs[4] = m.engine.AddMemory(sizeOfAnswer, false)
	}
	return errors.Join(errs[:]...)
}

// CacheStats counts what the verification cache did since New.
type CacheStats struct {
	// Keys and Tokens are the caches of credentials that were found, Absent is that
	// of texts that are none.
	Keys, Tokens, Absent cache.Stats
	// NegativeHits is how many verifications Absent refused.
	NegativeHits uint64
	// Rechecked is how many answers were too old to be believed, and read again.
	Rechecked uint64
	// Collapsed is how many verifications waited for another one's read.
	Collapsed uint64
	// Stale is how many answers were given under Config.StaleIfError.
	Stale uint64
	// FeedAge is how long ago the store's feed last proved that everything before is
	// known here; negative if it never has, or there is none.
	FeedAge time.Duration
}

// CacheStats returns the counts so far.
func (m *Manager) CacheStats() CacheStats {
	s := m.engine.Stats()
	st := CacheStats{
		Keys: m.keys.Stats(), Absent: s.Absent, NegativeHits: s.Refused, Rechecked: s.Rechecked,
		Collapsed: s.Collapsed, Stale: s.Stale, FeedAge: s.FeedAge,
	}
	if m.accessTokens != nil {
		st.Tokens = m.accessTokens.Stats()
	}
	return st
}

// seenStore is the store as a Manager reads it: what is read is noted before anybody is
// told. Its capabilities are the store's own.
type seenStore struct {
	backend.Store
	m *Manager
}

func (s *seenStore) Unwrap() backend.Store { return s.Store }

func (s *seenStore) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	switch {
	case s.m.blind:
	case err == nil:
		s.m.saw(&rec)
	case errors.Is(err, backend.ErrNotFound):
		s.m.engine.Saw(id, 0)
	}
	return rec, err
}

// saw notes a record that was read from the store: see [engine.Engine.Saw]. For marks it
// also notes what the record says, which only rises.
func (m *Manager) saw(rec *backend.Record) {
	if m.blind {
		return
	}
	if marks.Is(rec.ID) && m.marks.Follows {
		if to, err := marks.Decode(rec); err == nil {
			m.marks.Raise(rec.ID, to)
		}
	}
	m.engine.Saw(rec.ID, rec.Version)
}
