package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/keytext"
)

// entry is what the verification cache holds of one key: enough to answer with
// one hash and a few comparisons. It is immutable but for the usage counters.
type entry struct {
	// seen is SHA-256 over what was presented (its version, ID and secret), made
	// when it was first accepted. It is never the stored digest, so that a hit
	// costs one block whatever pepper or foreign hash the record is under.
	seen     Digest
	from, to int64 // accepted while from <= now < to, Unix milliseconds; never if equal
	key      *Key
	prefix   int // index in Manager.prefixes; noPrefix for an imported key
	use      usageCell
	refused  error // for good, as far as this entry's records say; nil if none
}

const noPrefix = -1

// subjectState is what is cached of a subject: its epoch, and until when that
// may be believed.
type subjectState struct {
	epoch uint64
	until int64
}

const forever = int64(1)<<62 - 1

// Verify checks what a client presented and returns the credential it is. It
// is the hot path: for a key in the cache it costs one SHA-256 block and one
// lookup, allocates nothing and takes no lock.
//
// An error that is ErrRejected (ErrMalformed, ErrUnknown, ErrExpired,
// ErrRevoked, ErrDisabled …) means that the credential is bad: answer 401. Any
// other error (the store failed, a record is corrupt, ctx ended) means that it
// could not be checked: answer 503. A Verify that begins after Revoke, Disable
// or another change through this Manager has returned never uses the old
// state; a change made elsewhere is seen within Config.MaxStaleness.
//
// Nothing of presented is kept.
func (m *Manager) Verify(ctx context.Context, presented string) (Credential, error) {
	if m.closed.Load() {
		return nil, ErrClosed
	}
	text, problem := keytext.Split(presented)
	prefix := m.accepts(text)
	if problem != keytext.OK || prefix == noPrefix {
		if m.tokens != nil && isToken(presented) {
			return m.verifyToken(ctx, presented)
		}
		return m.verifyOther(ctx, presented, text, problem)
	}
	if !keytext.Summed(presented) {
		return nil, malformed(keytext.Blame(presented))
	}
	block := keytext.Block(presented)
	seen := Digest{sha256.Sum256(block[:])}
	id := ID(block[1 : 1+keytext.IDLen])
	now := m.clock.now()
	e, ok := m.entries.Get(cache.Key(id), now.mono)
	if ok && e.prefix == prefix && e.seen.Equal(seen) {
		return e.answer(m.usage, now.ms)
	}
	// What is in the cache was checked when it came in. The rest of the check is
	// left until here, off the way of a hit.
	if problem := keytext.Check(presented); problem != keytext.OK {
		return nil, malformed(problem)
	}
	if ok {
		return nil, ErrUnknown
	}
	return m.verifyStored(ctx, now, id, prefix, presented, seen)
}

// answer is the end of a verification that found e in the cache: what the state
// says now.
func (e *entry) answer(log *usageLog, ms int64) (Credential, error) {
	if ms < e.from || ms >= e.to {
		return nil, e.refusal(ms)
	}
	log.used(&e.use, ms)
	return e.key, nil
}

func (e *entry) refusal(ms int64) error {
	if e.refused != nil {
		return e.refused
	}
	return e.key.refusal(ms)
}

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
func (m *Manager) verifyOther(ctx context.Context, presented, prefix string, problem keytext.Problem) (Credential, error) {
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
		return m.verifyForeign(ctx, presented)
	}
	return nil, malformed(problem)
}

// verifyStored is a miss of the cache: read the record, check, remember.
func (m *Manager) verifyStored(ctx context.Context, now moment, id ID, prefix int, presented string, seen Digest) (Credential, error) {
	ticket := m.entries.Begin()
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, checkError(err)
	}
	k, err := decodeKey(&rec)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	if k.foreign || k.prefix != m.prefixes[prefix].text {
		return nil, ErrUnknown
	}
	digest := seen
	if k.pepper != "" {
		pepper, ok := m.peppers[k.pepper]
		if !ok {
			return nil, fmt.Errorf("fob: verify: %w: %q", ErrPepper, k.pepper)
		}
		digest = pepperedDigest(pepper, nativeSecret(presented))
	}
	if !digest.Equal(k.digest) {
		return nil, ErrUnknown
	}
	e := entry{seen: seen, key: k, prefix: prefix}
	return m.remember(ctx, now, ticket, cache.Key(id), e, presented)
}

// nativeSecret is what the digest of a native key is made over.
func nativeSecret(presented string) []byte {
	block := keytext.Block(presented)
	return block[:]
}

// remember completes the entry of a key whose secret was found right, puts it
// into the cache and answers from it.
func (m *Manager) remember(ctx context.Context, now moment, ticket cache.Ticket, ck cache.Key, e entry, presented string) (Credential, error) {
	k := e.key
	state, err := m.subjectState(ctx, now, k.subjectRef)
	if err != nil {
		return nil, checkError(err)
	}
	e.use.id = k.id
	switch {
	case k.epoch < state.epoch || k.status == StatusRevoked:
		e.refused = ErrRevoked
	case k.status == StatusDisabled:
		e.refused = ErrDisabled
	default:
		e.from, e.to = k.notBefore, forever
		if end := k.endsAt(); end != 0 {
			e.to = end
		}
	}
	until := min(now.mono+int64(m.cfg.MaxStaleness), state.until)
	m.entries.Put(ck, e, ticket, until, cache.Ref(k.id), cache.Ref(k.subjectRef))
	if now.ms < e.from || now.ms >= e.to {
		return nil, e.refusal(now.ms)
	}
	m.usage.count(k.id, now.ms)
	if m.wantsRehash(k) {
		m.rehash(ctx, k, presented)
	}
	return k, nil
}

// subjectState returns the epoch of a subject, from the cache if it may. A
// subject that never was revoked has no record, and epoch zero.
func (m *Manager) subjectState(ctx context.Context, now moment, ref recordID) (subjectState, error) {
	if s, ok := m.subjects.Get(cache.Key(ref), now.mono); ok {
		return *s, nil
	}
	ticket := m.subjects.Begin()
	epoch, _, err := m.readEpoch(ctx, ref)
	if err != nil {
		return subjectState{}, err
	}
	s := subjectState{epoch: epoch, until: now.mono + int64(m.cfg.MaxStaleness)}
	m.subjects.Put(cache.Key(ref), s, ticket, s.until, cache.Ref(ref))
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

// rehash stores the digest of a secret just verified under the active pepper.
// It is a courtesy of the verification: a failure is reported as an event, and
// the next verification tries again.
func (m *Manager) rehash(ctx context.Context, k *Key, presented string) {
	next := *k
	if k.foreign {
		m.digest(&next, foreignSecret(k.id, presented))
	} else {
		m.digest(&next, nativeSecret(presented))
	}
	rec := encodeKey(&next, m.purgeAt(&next))
	_, err := m.store.Put(ctx, rec, backend.IfVersion(k.version))
	switch {
	case err == nil:
		m.forget(rec.ID)
		m.observe(Event{Type: EventRehashed, ID: k.id, Subject: k.subject})
	case errors.Is(err, backend.ErrConflict):
		// Somebody changed the key meanwhile; that is no failure.
	default:
		m.forget(rec.ID)
		m.observe(Event{Type: EventUpkeepFailed, ID: k.id, Subject: k.subject, Err: storeError("rehash", err)})
	}
}

// checkError is an error of the store during a verification.
func checkError(err error) error {
	if errors.Is(err, backend.ErrNotFound) {
		return ErrUnknown
	}
	return storeError("fob: verify", err)
}
