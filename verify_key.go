package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/usagelog"
)

// nativeKeys is the form of the keys that are issued here. Their text contains the ID, by
// which the record and the cached answer are found.
type nativeKeys struct{ m *Manager }

// recogniseKey is for a text with one of our prefixes, which has a number.
func (m *Manager) recogniseKey(presented string, number int, text *recognised) {
	text.form, text.number, text.memory = nativeKeys{m}, int16(number), m.keys
	text.hashed = keytext.Secret(presented)
	text.placed, text.at = true, cache.Key(text.hashed[1:1+keytext.IDLen])
	text.tail = keytext.Sum(presented)
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

// hasPrefix reports whether a prefix is any of ours, of this environment or another.
func (m *Manager) hasPrefix(prefix string) bool {
	for i := range m.prefixes {
		if m.prefixes[i].text == prefix {
			return true
		}
	}
	return false
}

// checkKey checks the text of a native key by itself.
func checkKey(presented string) error {
	if problem := keytext.Check(presented); problem != keytext.OK {
		return errs.OfText(problem)
	}
	return nil
}

// Absent implements engine.Loader. If a key has the ID, this text may have its secret,
// although the text that was refused had a wrong one.
func (f nativeKeys) Absent(q *lookup, found *engine.Absence[body]) error {
	if found.Form < 0 {
		return nil
	}
	if k := found.Body.key; k != nil {
		if made, err := f.m.digestUnder(k.state.Pepper, q); err != nil || made.Equal(&k.state.Digest) {
			return nil
		}
	}
	return found.Err
}

// Load implements engine.Loader: it reads the record of the key and checks the secret.
func (f nativeKeys) Load(ctx context.Context, q *lookup) (*answer, error) {
	m, id := f.m, backend.ID(q.At)
	q.ReadsOwn(id)
	rec, err := m.store.Get(ctx, id)
	if errors.Is(err, backend.ErrNotFound) {
		return nil, m.engine.Refuse(q, engine.Absence[body]{Err: ErrUnknown}, cache.Ref(id))
	}
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	k, err := m.decodeKey(&rec)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	if k.state.Imported || k.state.Prefix != m.prefixes[q.Form].text {
		return nil, ErrUnknown
	}
	made, err := m.digestUnder(k.state.Pepper, q)
	if err != nil {
		return nil, err
	}
	matches, err := m.peppers.Matches(ctx, k.state.Pepper, made, k.state.Digest)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	if !matches {
		return nil, m.engine.Refuse(q, engine.Absence[body]{Err: ErrUnknown, Body: body{key: k}}, cache.Ref(id))
	}
	return m.rememberKey(ctx, q, k)
}

// digestUnder is the digest of what was presented, under a pepper or under none.
func (m *Manager) digestUnder(pepper string, q *lookup) (digest.Digest, error) {
	if pepper == "" {
		return q.Seen, nil
	}
	made, err := m.peppers.Under(pepper, nativeSecret(q.Presented))
	if err != nil {
		return made, fmt.Errorf("fob: verify: %w", err)
	}
	return made, nil
}

// rememberKey caches the answer about a key whose secret was found right.
func (m *Manager) rememberKey(ctx context.Context, q *lookup, k *Key) (*answer, error) {
	refused, asOf, err := m.holdersRefuse(ctx, &q.Reading, &k.state)
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	b := body{use: usagelog.Cell{ID: k.state.ID, Hit: true}, key: k}
	b.from, b.to, b.refused = k.state.SpanUnder(refused, clock.Forever)
	a := answer{Told: k.asOf, Body: b}
	if q.Form >= 0 {
		a.Version = k.state.Version
	}
	stored := m.engine.Remember(q, a, min(q.Now.Mono, asOf), keyRefs(&k.state)...)
	if b.refused == nil && m.wantsRehash(&k.state) {
		m.rehash(ctx, q.Now, &k.state, q.Presented)
	}
	return stored, nil
}

// keyRefs are the records that an answer about a key depends on.
func keyRefs(k *keystate.State) []cache.Ref {
	refs := append(make([]cache.Ref, 0, 3), cache.Ref(k.ID), cache.Ref(k.SubjectRef))
	if k.AccountRef != (record.ID{}) {
		refs = append(refs, cache.Ref(k.AccountRef))
	}
	return refs
}

// holder is what was said of a subject or of an account: its epoch, and its state.
type holder struct{ epoch, state uint64 }

// holdersRefuse returns why a key is refused because of its subject or its account
// (ErrRevoked, ErrDisabled or nil), and the monotonic instant as of which that holds.
func (m *Manager) holdersRefuse(ctx context.Context, r *engine.Reading, k *keystate.State) (refused error, asOf int64, err error) {
	var h marks.Holders
	subject, asOf, err := m.holder(ctx, r, k.SubjectRef)
	if err != nil {
		return nil, 0, err
	}
	h.Subject = marks.Mark{Epoch: subject.epoch, State: subject.state}
	if k.AccountRef != (record.ID{}) {
		account, also, err := m.holder(ctx, r, k.AccountRef)
		if err != nil {
			return nil, 0, err
		}
		h.Account, asOf = marks.Mark{Epoch: account.epoch, State: account.state}, min(asOf, also)
	}
	return h.Refused(k.Epoch, k.AccountEpoch), asOf, nil
}

// holder returns what was said of a subject or an account, and the monotonic instant as of
// which it holds. One of which nothing was said has no record.
func (m *Manager) holder(ctx context.Context, r *engine.Reading, ref record.ID) (state holder, asOf int64, err error) {
	if !r.Fresh && m.engine.Live(r.Now) {
		if found, known := m.marks.Get(ref); known {
			return holder{found.Epoch, found.State}, r.Now.Synced, found.Bad
		}
	}
	if s, asOf, ok := m.holders.Get(r, cache.Key(ref)); ok {
		return *s, asOf, nil
	}
	ticket := m.holders.Begin()
	r.Reads(ref)
	found, _, err := m.marks.Read(ctx, ref)
	if err != nil {
		return holder{}, 0, err
	}
	return *m.holders.Put(r, cache.Key(ref), holder{found.Epoch, found.State}, r.Now.Mono, ticket, cache.Ref(ref)), r.Now.Mono, nil
}

// stamp reads the epochs with which a credential of a subject and an account is stamped.
func (m *Manager) stamp(ctx context.Context, subject, account record.ID) (epoch, accountEpoch uint64, err error) {
	h, err := m.marks.ReadHolders(ctx, subject, account)
	return h.Subject.Epoch, h.Account.Epoch, err
}

// stampOf is stamp for the successor of a key, unless the key is refused because of its
// subject or its account.
func (m *Manager) stampOf(ctx context.Context, k *keystate.State) (epoch, accountEpoch uint64, err error) {
	h, err := m.marks.ReadHolders(ctx, k.SubjectRef, k.AccountRef)
	if err != nil {
		return 0, 0, errs.OfStore("read", err)
	}
	return h.Subject.Epoch, h.Account.Epoch, h.Refused(k.Epoch, k.AccountEpoch)
}

// nativeSecret is the part of a native key that its digest covers.
func nativeSecret(presented string) []byte {
	block := keytext.Block(presented)
	return block[:]
}

// wantsRehash reports whether the stored digest is not of the kind that is made now.
func (m *Manager) wantsRehash(k *keystate.State) bool {
	return k.ImportedHash != "" || k.Pepper != m.peppers.Active()
}

// rehashWait bounds how long a rehash may delay its verification. rehashEvery is the
// pause between two tries for one key: without it, two processes whose peppers are in
// different order would rewrite one key in turns.
const (
	rehashWait  = 250 * time.Millisecond
	rehashEvery = 10 * time.Minute
)

// rehash stores the digest, under the active pepper, of a secret that was just verified.
// The verification does not depend on it: a failure is reported as an event, and a later
// verification tries again.
func (m *Manager) rehash(ctx context.Context, now clock.Moment, k *keystate.State, presented string) {
	at := cache.Key(k.ID)
	if _, tried := m.rehashed.Get(at, now.Mono); tried {
		return
	}
	m.rehashed.Put(at, struct{}{}, m.rehashed.Begin(), now.Mono+int64(rehashEvery))
	next := *k
	ctx, cancel := context.WithTimeout(ctx, rehashWait)
	defer cancel()
	if err := m.peppers.Vouch(ctx); err != nil {
		if errs.IsOutage(err) { // any other error is a problem, and was reported
			m.observe(ctx, Event{Type: EventUpkeepFailed, ID: ID(k.ID), Subject: subjectOf(k.Owner), Err: fmt.Errorf("fob: rehash: %w", err)})
		}
		return
	}
	if k.Imported {
		m.digest(&next, imported.Material(k.ID, presented))
	} else {
		m.digestText(&next, presented)
	}
	rec := m.keystore.RecordOf(&next)
	_, err := m.store.Put(ctx, rec, backend.IfVersion(k.Version))
	if err == nil || errors.Is(err, backend.ErrIndeterminate) {
		m.forget(rec.ID) // it has another version now
	}
	switch {
	case err == nil:
		m.observe(ctx, Event{Type: EventRehashed, ID: ID(k.ID), Subject: subjectOf(k.Owner)})
	case errors.Is(err, backend.ErrConflict), errors.Is(err, backend.ErrNotFound):
		// Somebody changed the key meanwhile; that is no failure.
	default:
		m.observe(ctx, Event{Type: EventUpkeepFailed, ID: ID(k.ID), Subject: subjectOf(k.Owner), Err: errs.OfStore("fob: rehash", err)})
	}
}
