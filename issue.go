package fob

import (
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
	"github.com/fobkit/fob/internal/sealed"
)

// IssueKey makes a key and returns its secret, which is shown this once, and
// the key. The key is durable when IssueKey returns (as durable as the store
// is). A wrong spec is ErrInvalid.
//
// If it fails with ErrIndeterminate, a key whose secret nobody has may exist; it
// can be found by List and harms nothing. Issue again.
func (m *Manager) IssueKey(ctx context.Context, spec KeySpec) (Secret, *Key, error) {
	if m.life.Closed() {
		return Secret{}, nil, ErrClosed
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return Secret{}, nil, err
	}
	if k.Epoch, err = m.marks.ReadEpoch(ctx, k.SubjectRef); err != nil {
		return Secret{}, nil, errs.OfStore("fob: issue key", err)
	}
	if err := m.peppers.Vouch(ctx); err != nil {
		return Secret{}, nil, fmt.Errorf("fob: issue key: %w", err)
	}
	if spec.IdempotencyKey != "" {
		return m.issueOnce(ctx, spec, k, now)
	}
	secret := m.drawSecret(k, now)
	if err := m.putNewKey(ctx, k); err != nil {
		return Secret{}, nil, err
	}
	return newSecret(secret), keyOf(k, clock.Millis(now)), nil
}

// drawSecret gives k an ID, draws its secret and stores the digest in k.
func (m *Manager) drawSecret(k *keystate.State, now time.Time) string {
	k.ID = keytext.NewID(now)
	text := keytext.Format(k.Prefix, k.ID, keytext.NewSecret())
	m.digestText(k, text)
	return text
}

// digestText stores the digest of a key's own text in k.
func (m *Manager) digestText(k *keystate.State, text string) {
	block := keytext.Block(text)
	m.digest(k, block[:])
}

func (m *Manager) putNewKey(ctx context.Context, k *keystate.State) error {
	version, err := m.records.Create(ctx, m.keystore.RecordOf(k))
	if err != nil {
		return fmt.Errorf("fob: issue key: %w", err)
	}
	k.Version = version
	m.observe(Event{Type: EventIssued, ID: ID(k.ID), Subject: k.Subject()})
	return nil
}

// keptBeyond is how much longer the record of a key is kept than the answer that
// leads to it. A repeat takes an answer without a key for a call that was cut off,
// and makes the key: so as long as anybody trusts the answer, what became of the key
// must still be there to be found. That a clock may be late is in the answer's own time
// (clock.PurgeMargin); this is for a call that is slow.
const keptBeyond = time.Hour

// issueOnce is IssueKey with an idempotency key. The answer is sealed and
// stored first, the key second: whichever step a crash comes after, a repeat
// finishes the same work with the same secret.
func (m *Manager) issueOnce(ctx context.Context, spec KeySpec, k *keystate.State, now time.Time) (Secret, *Key, error) {
	if n := len(spec.IdempotencyKey); n < 16 || n > 256 {
		return Secret{}, nil, fmt.Errorf("%w: idempotency key of %d bytes, want 16 to 256", ErrInvalid, n)
	}
	ref := record.Named(record.Idempotency, k.Owner, spec.IdempotencyKey)
	request := requestDigest(spec, k.Prefix)
	var secret Secret
	var issued *Key
	err := retry.Do(ctx, func(bool) error {
		old, err := m.store.Get(ctx, ref)
		cond := backend.IfAbsent()
		switch {
		case errors.Is(err, backend.ErrNotFound):
		case err != nil:
			return errs.OfStore("fob: issue key", err)
		case now.UnixMilli() < old.PurgeAt-clock.PurgeMargin.Milliseconds():
			secret, issued, err = m.issueAgain(ctx, spec, k, now, &old)
			return err
		default:
			cond = backend.IfVersion(old.Version) // its window is over
		}
		text := m.drawSecret(k, now)
		rec := backend.Record{
			ID:      ref,
			Kind:    record.Idempotency,
			Owner:   k.Owner,
			Created: k.IssuedAt,
			PurgeAt: k.IssuedAt + (m.cfg.IdempotencyWindow + clock.PurgeMargin).Milliseconds(),
		}
		k.KeptUntil = rec.PurgeAt + keptBeyond.Milliseconds()
		if v, replaces := cond.Version(); replaces && v == old.Version {
			rec.Created = old.Created // immutable
		}
		sealed, err := m.sealAnswer(spec.IdempotencyKey, ref, text)
		if err != nil {
			return err
		}
		w := record.NewBody()
		w.ID(record.FieldTarget, k.ID)
		w.Text(record.FieldSealed, sealed)
		w.Text(record.FieldRequest, string(request[:]))
		w.Finish(&rec)
		if _, err = m.records.Replace(ctx, rec, cond); err != nil {
			// Of a call with the same key that came first, the answer is ours.
			return retry.Raced(fmt.Errorf("fob: issue key: %w", err))
		}
		secret = newSecret(text)
		issued, err = m.finishOnce(ctx, k, now)
		return err
	})
	if err != nil {
		return Secret{}, nil, err
	}
	return secret, issued, nil
}

// finishOnce writes the key of an answer that is stored, unless another call with
// the same answer has done so meanwhile.
func (m *Manager) finishOnce(ctx context.Context, k *keystate.State, now time.Time) (*Key, error) {
	err := m.putNewKey(ctx, k)
	if errors.Is(err, ErrConflict) {
		return m.currentKey(ctx, ID(k.ID))
	}
	if err != nil {
		return nil, err
	}
	return keyOf(k, clock.Millis(now)), nil
}

// issueAgain answers a repeat from the sealed record.
func (m *Manager) issueAgain(ctx context.Context, spec KeySpec, k *keystate.State, now time.Time, rec *backend.Record) (Secret, *Key, error) {
	r, err := record.Open(rec, record.Idempotency)
	if err != nil {
		return Secret{}, nil, err
	}
	var sealed, asked string
	for field, v := range r.Fields {
		switch field {
		case record.FieldTarget:
			k.ID = r.ID(v)
		case record.FieldSealed:
			sealed = v
		case record.FieldRequest:
			asked = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || sealed == "" || k.ID == (record.ID{}) {
		return Secret{}, nil, record.Corrupt(rec, "fields")
	}
	text, err := m.openAnswer(spec.IdempotencyKey, rec.ID, sealed)
	if errors.Is(err, ErrCorrupt) && len(sealed) > int(sealed[0]) {
		err = cmp.Or(m.peppers.Doubt(ctx, sealed[1:1+int(sealed[0])]), err)
	}
	if err != nil {
		return Secret{}, nil, err
	}
	prefix, problem := keytext.Split(text)
	if problem != keytext.OK || keytext.Check(text) != keytext.OK {
		return Secret{}, nil, record.Corrupt(rec, "answer")
	}
	if spec.Prefix == "" && slices.Contains(m.cfg.RetiredPrefixes, prefix) {
		k.Prefix = prefix // it was the default then
	}
	if request := requestDigest(spec, k.Prefix); asked != string(request[:]) {
		return Secret{}, nil, ErrIdempotency
	}
	issued, err := m.currentKey(ctx, ID(k.ID))
	if errors.Is(err, ErrNotFound) {
		// The first call ended between its two steps.
		k.KeptUntil = rec.PurgeAt + keptBeyond.Milliseconds()
		m.digestText(k, text)
		issued, err = m.finishOnce(ctx, k, now)
	}
	if err != nil {
		return Secret{}, nil, err
	}
	return newSecret(text), issued, nil
}

// requestDigest tells one request from another under the same idempotency key.
// prefix is that of the key's text, which spec may leave to Config.
func requestDigest(spec KeySpec, prefix string) [sha256.Size]byte {
	h := sha256.New()
	part := func(texts ...string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(texts)))
		h.Write(n[:])
		for _, t := range texts {
			binary.BigEndian.PutUint64(n[:], uint64(len(t)))
			h.Write(n[:])
			h.Write([]byte(t))
		}
	}
	number := func(n int64) { part(string(binary.BigEndian.AppendUint64(nil, uint64(n)))) }
	part(spec.Subject, spec.Name, prefix, spec.Scopes.String())
	part(spec.Tags...)
	number(int64(max(spec.SubjectKind, SubjectApplication)))
	number(clock.Millis(spec.NotBefore))
	number(clock.Millis(spec.ExpiresAt))
	number(int64(spec.TTL))
	return [sha256.Size]byte(h.Sum(nil))
}

// sealAnswer encrypts a secret so that it takes the idempotency key, and the
// active pepper where there is one, to open it: neither is in the store.
// AES-256-GCM under a key of its own for each record (HKDF, RFC 5869).
func (m *Manager) sealAnswer(idempotencyKey string, ref record.ID, text string) (string, error) {
	pepper := m.peppers.Active()
	aead, err := m.answerCipher(idempotencyKey, pepper, ref)
	if err != nil {
		return "", err
	}
	out := append([]byte{byte(len(pepper))}, pepper...)
	return string(aead.Seal(out, nil, []byte(text), ref[:])), nil
}

func (m *Manager) openAnswer(idempotencyKey string, ref record.ID, sealed string) (string, error) {
	n := 1 + int(sealed[0])
	if len(sealed) < n {
		return "", fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	pepper, box := sealed[1:n], sealed[n:]
	aead, err := m.answerCipher(idempotencyKey, pepper, ref)
	if err != nil {
		return "", err
	}
	text, err := aead.Open(nil, nil, []byte(box), ref[:])
	if err != nil {
		return "", fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	return string(text), nil
}

func (m *Manager) answerCipher(idempotencyKey, pepper string, ref record.ID) (cipher.AEAD, error) {
	material := []byte(idempotencyKey)
	if pepper != "" {
		made, err := m.peppers.Under(pepper, material)
		if err != nil {
			return nil, err
		}
		material = made[:]
	}
	return sealed.Cipher(material, ref[:], "fob idempotent answer")
}
