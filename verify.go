package fob

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/usagelog"
)

// subjectState is what is remembered of a subject without a feed: its epoch.
type subjectState struct {
	epoch uint64
	asOf  int64
}

// Verify checks what a client presented and returns the credential it is. It
// is the hot path: for a key in the cache it costs one SHA-256 block and one
// lookup, allocates nothing and takes no lock.
//
// An error that is ErrRejected (ErrMalformed, ErrUnknown, ErrExpired,
// ErrRevoked, ErrDisabled …) means that the credential is bad: answer 401. Any
// other error (the store failed, a record is corrupt, ctx ended) means that it
// could not be checked: answer 503. A Verify that begins after Revoke, Disable
// or another change through this Manager has returned never uses the old
// state; a change made elsewhere is seen within Config.MaxStaleness. And once any call of
// this Manager has told of a state, none that begins later tells of an older one.
//
// Nothing of presented is kept.
func (m *Manager) Verify(ctx context.Context, presented string) (Credential, error) {
	return m.verify(ctx, presented, cached)
}

// Fresh returns a Verifier that trusts no memory: what it accepts was read from the
// store during the call. A change that another process has made, and that returned
// there, is seen; a store that does not answer is an error, whatever Config says.
// What it costs is reads of the store, for the routes that move money: two for a key,
// three to five for an imported one (two more for each other key that has its locator),
// and three to six for a token (of what ends it, its
// family, its subject and its issuer, and of the key that it was exchanged for and the
// subject of that), besides those of token keys that are not known yet.
func (m *Manager) Fresh() Verifier {
	return VerifierFunc(func(ctx context.Context, presented string) (Credential, error) {
		return m.verify(ctx, presented, fresh)
	})
}

func (m *Manager) verify(ctx context.Context, presented string, how demand) (Credential, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	text, problem := keytext.Split(presented)
	prefix := m.accepts(text)
	if problem != keytext.OK || prefix == noPrefix {
		if m.tokens != nil && isToken(presented) {
			return m.verifyToken(ctx, presented, how)
		}
		return m.verifyOther(ctx, presented, text, problem, how)
	}
	if !keytext.Summed(presented) {
		return nil, malformed(keytext.Blame(presented))
	}
	block := keytext.Secret(presented)
	id := ID(block[1 : 1+keytext.IDLen])
	now := m.moment()
	// Looked up and looked at before it is hashed: the processor fetches the entry
	// from memory while it hashes.
	e, ok := m.answers.keys.Get(cache.Key(id), now.Mono)
	good := ok && how == cached && m.believed(atomic.LoadInt64(&e.asOf), now)
	ours := ok && e.form == int16(prefix)
	seen := Digest{sha256.Sum256(block)}
	if good {
		if ours && e.seen.Equal(seen) {
			e.confirm(now)
			return m.answer(e, now.MS, true)
		}
		// What is in the cache was checked when it came in. The rest of the check is
		// left until here, off the way of a hit.
		if problem := keytext.Check(presented); problem != keytext.OK {
			return nil, malformed(problem)
		}
		return nil, ErrUnknown // the ID is known, and this is not its secret
	}
	if problem := keytext.Check(presented); problem != keytext.OK {
		return nil, malformed(problem)
	}
	q := query{how: how, now: now, form: prefix, presented: presented, seen: seen, at: cache.Key(id), id: id}
	if ours && e.seen.Equal(seen) {
		q.old = e
	}
	return m.findOut(ctx, &q)
}

// noPrefix is the index of a prefix that is none of ours.
const noPrefix = -1

// accepts returns the index of a prefix of this environment, or noPrefix.
func (m *Manager) accepts(prefix string) int {
	for i := range m.prefixes {
		if p := &m.prefixes[i]; p.text == prefix && !p.other {
			return i
		}
	}
	return noPrefix
}

func malformed(p keytext.Problem) error {
	switch p {
	case keytext.Length:
		return ErrKeyLength
	case keytext.Prefix:
		return ErrKeyPrefix
	case keytext.Version:
		return ErrKeyVersion
	case keytext.Alphabet:
		return ErrKeyAlphabet
	case keytext.Checksum:
		return ErrKeyChecksum
	default:
		return ErrMalformed
	}
}

// verifyOther is for text that is not a key with one of our prefixes.
func (m *Manager) verifyOther(ctx context.Context, presented, prefix string, problem keytext.Problem, how demand) (Credential, error) {
	if problem == keytext.OK {
		for _, p := range m.prefixes {
			if p.text != prefix {
				continue
			}
			if problem := keytext.Check(presented); problem != keytext.OK {
				return nil, malformed(problem)
			}
			return nil, ErrWrongEnvironment
		}
		problem = keytext.Prefix
	}
	if m.cfg.Foreign != nil {
		return m.verifyForeign(ctx, presented, how)
	}
	return nil, malformed(problem)
}

// loadKey reads the record of a native key, checks it and remembers the answer.
func (m *Manager) loadKey(ctx context.Context, q *query) (*answer, error) {
	ticket, absent := m.answers.keys.Begin(), m.answers.absent.Begin()
	q.pins.own = backend.ID(q.id)
	m.newest.pin(&q.pins, q.pins.own)
	rec, err := m.store.Get(ctx, q.pins.own)
	if errors.Is(err, backend.ErrNotFound) {
		return m.refuse(q, absent, absence{native: true}, cache.Ref(q.id))
	}
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	k, err := decodeKey(&rec)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	if k.foreign || k.prefix != m.prefixes[q.form].text {
		return nil, ErrUnknown
	}
	digest, err := m.digestUnder(k.pepper, q)
	if err != nil {
		return nil, err
	}
	if !digest.Equal(k.digest) {
		if err := m.doubtPepper(ctx, k.pepper); err != nil {
			return nil, fmt.Errorf("fob: verify: %w", err)
		}
		return m.refuse(q, absent, absence{native: true, key: k}, cache.Ref(q.id))
	}
	m.matched(k.pepper)
	return m.remember(ctx, q, ticket, k)
}

// refuse remembers that there is no such credential, if it was asked for before.
func (m *Manager) refuse(q *query, ticket cache.Ticket, a absence, refs ...cache.Ref) (*answer, error) {
	if a.err == nil {
		a.err = ErrUnknown
	}
	a.asOf = q.now.Mono
	part := binary.LittleEndian.Uint64(q.at[8:]) * 0x9e3779b97f4a7c15 // text in its low bits, else
	if m.answers.glimpsed[part>>(64-glimpsedBits)].Swap(part) != part {
		return nil, a.err
	}
	_, q.pins.absent = m.answers.absent.Put(q.at, a, ticket, clock.Forever, refs...)
	return nil, a.err
}

// nativeSecret is what the digest of a native key is made over.
func nativeSecret(presented string) []byte {
	block := keytext.Block(presented)
	return block[:]
}

// remember completes the entry of a key whose secret was found right, puts it
// into the cache and returns it.
func (m *Manager) remember(ctx context.Context, q *query, ticket cache.Ticket, k *Key) (*answer, error) {
	state, err := m.subjectState(ctx, q, k.subjectRef)
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	e := answer{
		seen: q.seen, form: int16(q.form), asOf: min(q.now.Mono, state.asOf),
		use: usagelog.Cell{ID: backend.ID(k.id)}, key: k,
	}
	switch {
	case k.epoch < state.epoch:
		e.refused = ErrRevoked
	case k.status != StatusActive || k.retired:
		e.refused = k.refusal(0)
	default:
		e.from, e.to = k.notBefore, clock.Forever
		if end := k.endsAt(); end != 0 {
			e.to = end
		}
	}
	e.tell(q.now.Wall(e.asOf))
	stored, ok := m.answers.keys.Put(q.at, e, ticket, clock.Forever, cache.Ref(k.id), cache.Ref(k.subjectRef))
	q.pins.kept = q.pins.kept || ok
	if e.refused == nil && m.wantsRehash(k) {
		m.rehash(ctx, q.now, k, q.presented)
	}
	return stored, nil
}

// subjectState returns the epoch of a subject. A subject that never was revoked has
// no record, and epoch zero.
func (m *Manager) subjectState(ctx context.Context, q *query, ref record.ID) (subjectState, error) {
	if q.how == cached {
		if m.live(q.now) {
			found := m.marks.Get(ref)
			return subjectState{found.Epoch, q.now.Synced}, found.Bad
		}
		if s, ok := m.answers.subjects.Get(cache.Key(ref), q.now.Mono); ok && m.believed(s.asOf, q.now) {
			return *s, nil
		}
	}
	ticket := m.answers.subjects.Begin()
	m.newest.pin(&q.pins, ref)
	epoch, _, err := m.readEpoch(ctx, ref)
	if err != nil {
		return subjectState{}, err
	}
	s := subjectState{epoch: epoch, asOf: q.now.Mono}
	_, ok := m.answers.subjects.Put(cache.Key(ref), s, ticket, clock.Forever, cache.Ref(ref))
	q.pins.kept = q.pins.kept || ok
	return s, nil
}

// wantsRehash reports whether the digest is not as one made now would be.
func (m *Manager) wantsRehash(k *Key) bool {
	return k.legacy != "" || k.pepper != m.activePepper()
}

func (m *Manager) activePepper() string {
	if len(m.cfg.Peppers) == 0 {
		return ""
	}
	return m.cfg.Peppers[0].ID
}

// digest makes the digest to store of a secret, under the active pepper.
func (m *Manager) digest(k *Key, secret []byte) {
	k.legacy, k.pepper = "", m.activePepper()
	if k.pepper == "" {
		k.digest = digestOf(secret)
		return
	}
	k.digest = pepperedDigest(m.peppers[k.pepper], secret)
}

// How long a rehash may hold up the verification that it belongs to, and how long
// it is left alone after a try: two processes with their peppers in another order
// would else write one key in turns.
const (
	rehashWait  = 250 * time.Millisecond
	rehashEvery = 10 * time.Minute
)

// rehash stores the digest of a secret just verified under the active pepper.
// It is a courtesy of the verification: a failure is reported as an event, and
// a later verification tries again. What was found out stays true meanwhile.
func (m *Manager) rehash(ctx context.Context, now clock.Moment, k *Key, presented string) {
	at := cache.Key(k.id)
	if _, tried := m.answers.rehashed.Get(at, now.Mono); tried {
		return
	}
	m.answers.rehashed.Put(at, struct{}{}, m.answers.rehashed.Begin(), now.Mono+int64(rehashEvery))
	next := *k
	ctx, cancel := context.WithTimeout(ctx, rehashWait)
	defer cancel()
	if err := m.vouchPepper(ctx); err != nil {
		if errs.IsOutage(err) { // else it is a problem, and was reported
			m.observe(Event{Type: EventUpkeepFailed, ID: k.id, Subject: k.subject, Err: fmt.Errorf("fob: rehash: %w", err)})
		}
		return
	}
	if k.foreign {
		m.digest(&next, foreignSecret(k.id, presented))
	} else {
		m.digest(&next, nativeSecret(presented))
	}
	rec := encodeKey(&next, m.purgeAt(&next))
	_, err := m.store.Put(ctx, rec, backend.IfVersion(k.version))
	if err == nil || errors.Is(err, backend.ErrIndeterminate) {
		m.forget(rec.ID) // it has another version now
	}
	switch {
	case err == nil:
		m.observe(Event{Type: EventRehashed, ID: k.id, Subject: k.subject})
	case errors.Is(err, backend.ErrConflict), errors.Is(err, backend.ErrNotFound):
		// Somebody changed the key meanwhile; that is no failure.
	default:
		m.observe(Event{Type: EventUpkeepFailed, ID: k.id, Subject: k.subject, Err: errs.OfStore("fob: rehash", err)})
	}
}
