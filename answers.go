package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
)

// answers is what a Manager remembers of verifications, and what it needs to know
// how long that may be believed.
//
// An answer is made from records; it is ended by a change of one of them (forget),
// be it made here or told by the feed. And it is believed only for a time: for
// MaxStaleness after it was read, or after the feed last proved that it has told
// everything, whichever is later. Why the second is sound: an entry that was put
// before the feed began does not survive its beginning (startFeed clears), so the
// feed would have named any change since.
type answers struct {
	keys     *cache.Cache[keyEntry]
	tokens   *cache.Cache[tokenEntry]
	parents  *cache.Cache[parentState]
	subjects *cache.Cache[subjectState]
	// absent is apart from the others and small, so that garbage evicts nothing good.
	absent *cache.Cache[absence]

	// rehashed is which keys were lately tried to be rehashed.
	rehashed *cache.Cache[struct{}]

	flights *cache.Flights[flightKey, error] // what is handed over is outage

	// synced is the instant (monotonic) of which the feed last proved that every
	// change before it is known here; never while it has proved nothing.
	synced atomic.Int64
	// joined is the instant (monotonic) from which on the fleet is known to know how
	// patient this Manager is; forever while it is not. See within.
	joined atomic.Int64
	outage atomic.Int64 // monotonic: when the store last failed to answer; see StaleIfError

	// glimpsed has a part of the digest of texts that were lately found to be no
	// credential: only one that comes again is worth an entry, so that a flood of
	// garbage leaves nothing behind that has to be collected.
	glimpsed [1 << glimpsedBits]atomic.Uint64

	rechecked, stale, refusedAbsent cache.Counter
}

// never is before every instant, with room to subtract from.
const never = -int64(1) << 62

const (
	forever = int64(1)<<62 - 1

	// absentEntries bounds what is remembered of credentials that do not exist.
	absentEntries = 1024
	glimpsedBits  = 13
	// With StaleIfError: how long a check that could be answered from memory waits for
	// the store, and how long the store is left alone after it failed.
	staleWait  = 250 * time.Millisecond
	staleRetry = time.Second
)

func newAnswers(cfg *Config) (*answers, error) {
	a := &answers{
		flights:   cache.NewFlights[flightKey, error](),
		rechecked: cache.NewCounter(), stale: cache.NewCounter(), refusedAbsent: cache.NewCounter(),
	}
	a.synced.Store(never)
	a.joined.Store(forever)
	a.outage.Store(never)
	var errs [6]error
	n, bytes := cfg.CacheEntries, cfg.CacheBytes
	a.keys, errs[0] = cache.New(cache.Config[keyEntry]{Entries: n, Bytes: bytes, Size: func(e *keyEntry) int { return e.key.size() }})
	a.subjects, errs[1] = cache.New(cache.Config[subjectState]{Entries: n, Bytes: bytes})
	a.absent, errs[2] = cache.New(cache.Config[absence]{Entries: min(n, absentEntries)})
	a.rehashed, errs[5] = cache.New(cache.Config[struct{}]{Entries: min(n, absentEntries)})
	if cfg.Tokens != nil {
		a.tokens, errs[3] = cache.New(cache.Config[tokenEntry]{Entries: n, Bytes: bytes, Size: (*tokenEntry).size})
		a.parents, errs[4] = cache.New(cache.Config[parentState]{Entries: n, Bytes: bytes, Size: func(p *parentState) int { return p.key.size() }})
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("fob: verification cache: %w", err)
	}
	return a, nil
}

// forget makes every answer that depends on these records be found anew. Once it
// has returned, no Verify that starts later uses one from before.
func (a *answers) forget(records ...backend.ID) {
	refs := make([]cache.Ref, len(records))
	for i, id := range records {
		refs[i] = cache.Ref(id)
	}
	// What others are made from goes first: an entry must not be made anew from a
	// subject's or parent's state that is about to be forgotten.
	a.subjects.Invalidate(refs...)
	a.absent.Invalidate(refs...)
	a.keys.Invalidate(refs...)
	if a.tokens != nil {
		a.parents.Invalidate(refs...)
		a.tokens.Invalidate(refs...)
	}
}

// version is that of the native key's record of which an entry was made; zero if it is
// none that is good.
func (a *answers) version(id backend.ID) uint64 {
	if e, ok := a.keys.Peek(cache.Key(id)); ok && e.form >= 0 {
		return e.key.version
	}
	return 0
}

// clear forgets everything.
func (a *answers) clear() {
	a.subjects.Clear()
	a.absent.Clear()
	a.keys.Clear()
	if a.tokens != nil {
		a.parents.Clear()
		a.tokens.Clear()
	}
}

// moment reads the clock. What the feed has proved is read with it, and before
// anything is looked up: an entry that is found good after that had not been
// changed by then.
func (m *Manager) moment() moment {
	synced := m.answers.synced.Load()
	now := m.clock.now()
	now.synced = synced
	return now
}

// believed reports whether what held at asOf (monotonic) may be an answer now.
func (m *Manager) believed(asOf int64, now moment) bool {
	return m.within(m.cfg.MaxStaleness, max(asOf, now.synced), now)
}

// live reports whether the feed is: then what it keeps (marks) is complete.
func (m *Manager) live(now moment) bool { return m.believed(never, now) }

// demand is how current the answer to a verification has to be.
type demand uint8

const (
	cached demand = iota // as Config.MaxStaleness says
	fresh                // read from the store during the call
)

// query is one verification that memory could not answer.
type query struct {
	how       demand
	now       moment
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
		ms = m.clock.now().ms
		cred, err := f.token.answer(ms)
		if err == nil {
			m.tokenUsed(f.token, ms, false)
		}
		return cred, err
	}
	if f.key.from != 0 || f.key.to != forever {
		ms = m.clock.now().ms
	}
	if ms < f.key.from || ms >= f.key.to {
		return nil, f.key.refusal(ms)
	}
	m.usage.count(f.key.key.id, ms)
	return f.key.key, nil
}

// findOut answers what memory could not.
func (m *Manager) findOut(ctx context.Context, q *query) (Credential, error) {
	if q.how == fresh {
		f := m.load(ctx, q)
		return m.answer(&f, q.now.ms)
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
		return m.answer(&f, q.now.ms)
	}
	if q.now.age(m.answers.outage.Load()) < int64(staleRetry) {
		if f, ok := m.lastResort(q); ok {
			return m.answer(&f, q.now.ms)
		}
	}
	short, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	f := m.collapse(short, q)
	if f.err != nil && ctx.Err() == nil && isOutage(f.err) {
		m.answers.outage.Store(q.now.mono)
		if old, ok := m.lastResort(q); ok {
			return m.answer(&old, q.now.ms)
		}
		if short.Err() != nil { // it was only waited for too shortly
			f = m.collapse(ctx, q)
		}
	}
	return m.answer(&f, q.now.ms)
}

// lastResort is the answer in memory, if Config.StaleIfError lets it be given
// although the store cannot be asked. It is looked up anew: a revocation that was
// made here or told by the feed has ended it.
func (m *Manager) lastResort(q *query) (f found, ok bool) {
	now := m.moment()
	var asOf int64
	switch {
	case q.oldKey != nil:
		e, ok := m.answers.keys.Get(q.at, now.mono)
		if !ok || e != q.oldKey {
			return found{}, false
		}
		e.confirm(now)
		f.key, asOf = e, atomic.LoadInt64(&e.asOf)
	default:
		e, ok := m.answers.tokens.Get(q.at, now.mono)
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

// isOutage reports whether err means that the store could not be asked, rather
// than that it gave an answer which cannot be used.
func isOutage(err error) bool {
	for _, known := range []error{ErrRejected, ErrCorrupt, ErrPepper, ErrBusy, ErrClosed, ErrSealKey, errPanicked, backend.ErrClosed} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
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

// absence is what is remembered of a credential that was not accepted and is not
// in the cache of those that were.
type absence struct {
	asOf int64
	// Of a native key, found by its ID: what its record says; nil: there is none.
	native bool
	key    *Key
	// Of other text, found by half of its digest: the whole, and what is wrong.
	seen Digest
	err  error
}

// knownAbsent returns the rejection of what is known to be no credential.
func (m *Manager) knownAbsent(q *query) error {
	a, ok := m.answers.absent.Get(q.at, q.now.mono)
	if !ok || !m.believed(a.asOf, q.now) {
		return nil
	}
	if !a.native {
		if q.form < 0 && a.seen.Equal(q.seen) {
			return a.err
		}
		return nil
	}
	if q.form < 0 {
		return nil
	}
	if a.key != nil {
		// The ID is somebody's, the secret was wrong. This one may be right.
		if digest, err := m.digestUnder(a.key.pepper, q); err != nil || digest.Equal(a.key.digest) {
			return nil
		}
	}
	return ErrUnknown
}

// digestUnder is the digest of what was presented as the store holds it.
func (m *Manager) digestUnder(pepper string, q *query) (Digest, error) {
	if pepper == "" {
		return q.seen, nil
	}
	secret, ok := m.peppers[pepper]
	if !ok {
		return Digest{}, fmt.Errorf("fob: verify: %w: %q", ErrPepper, pepper)
	}
	return pepperedDigest(secret, nativeSecret(q.presented)), nil
}

// seenText is the digest by which text other than a native key is remembered.
func seenText(presented []byte) (Digest, cache.Key) {
	seen := Digest{sha256.Sum256(presented)}
	return seen, cache.Key(seen.sum[:16])
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
	a := m.answers
	st := CacheStats{
		Keys: a.keys.Stats(), Absent: a.absent.Stats(),
		NegativeHits: a.refusedAbsent.Load(), Rechecked: a.rechecked.Load(),
		Collapsed: a.flights.Collapsed(), Stale: a.stale.Load(), FeedAge: m.moment().feedAge(),
	}
	if a.tokens != nil {
		st.Tokens = a.tokens.Stats()
	}
	return st
}
