package fob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
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
	keys     *cache.Cache[answer]
	tokens   *cache.Cache[answer]
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

const (
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
	a.synced.Store(clock.Never)
	a.joined.Store(clock.Forever)
	a.outage.Store(clock.Never)
	var errs [6]error
	n, bytes := cfg.CacheEntries, cfg.CacheBytes
	a.keys, errs[0] = cache.New(cache.Config[answer]{Entries: n, Bytes: bytes, Size: (*answer).size})
	a.subjects, errs[1] = cache.New(cache.Config[subjectState]{Entries: n, Bytes: bytes})
	a.absent, errs[2] = cache.New(cache.Config[absence]{Entries: min(n, absentEntries)})
	a.rehashed, errs[5] = cache.New(cache.Config[struct{}]{Entries: min(n, absentEntries)})
	if cfg.Tokens != nil {
		a.tokens, errs[3] = cache.New(cache.Config[answer]{Entries: n, Bytes: bytes, Size: (*answer).size})
		a.parents, errs[4] = cache.New(cache.Config[parentState]{Entries: n, Bytes: bytes, Size: func(p *parentState) int { return p.key.size() }})
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("fob: verification cache: %w", err)
	}
	return a, nil
}

// of is the memory of a form.
func (a *answers) of(form int) *cache.Cache[answer] {
	if form == tokenForm {
		return a.tokens
	}
	return a.keys
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
func (m *Manager) moment() clock.Moment {
	synced := m.answers.synced.Load()
	now := m.clock.Now()
	now.Synced = synced
	return now
}

// believed reports whether what held at asOf (monotonic) may be an answer now.
func (m *Manager) believed(asOf int64, now clock.Moment) bool {
	return m.within(m.cfg.MaxStaleness, max(asOf, now.Synced), now)
}

// live reports whether the feed is: then what it keeps (marks) is complete.
func (m *Manager) live(now clock.Moment) bool { return m.believed(clock.Never, now) }

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
	a, ok := m.answers.absent.Get(q.at, q.now.Mono)
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
		Collapsed: a.flights.Collapsed(), Stale: a.stale.Load(), FeedAge: m.moment().FeedAge(),
	}
	if a.tokens != nil {
		st.Tokens = a.tokens.Stats()
	}
	return st
}
