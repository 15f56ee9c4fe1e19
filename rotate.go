package fob

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// Rotation says how a key gives way to its successor.
type Rotation struct {
	// Overlap is how long the old key is still accepted, by the clock of whoever
	// verifies it. Zero: not at all, whatever any clock says.
	Overlap time.Duration
	// QuietTime, if set, retires the old key before the end of the overlap, once
	// the successor has been used and the old key, with all that it was exchanged for,
	// has not been for this long. At least twice the largest Config.UsageInterval of the
	// processes on the store, because usage is written behind; less than 2 minutes
	// counts as 2 minutes.
	QuietTime time.Duration
	// TTL is the lifetime of the successor; zero: the lifetime that the old key
	// was issued with, or was given since by UpdateKey, if any. It must outlast the
	// old key's NotBefore, else ErrInvalid.
	TTL time.Duration
}

// RotateKey replaces a key: it issues a successor of the same subject, name,
// scopes and tags, and ends the old key when the overlap is over. It returns the
// successor's secret, shown this once, and the successor.
//
// A rotation that failed or was cut off can be called again: the old key stays as
// it is until the last step, and the unfinished successor is taken over. The old
// key may have got its end only where the error is ErrIndeterminate, or there is no
// answer at all; then, called again, RotateKey fails with ErrAlready, nobody has
// the successor's secret, and the successor (Key.Successor of the old key) can be
// rotated in its turn. ErrAlready otherwise means that somebody else has rotated the
// key, now or before: of several rotations at once one comes through. Rotate its
// successor. Another ErrConflict means that the key was changed meanwhile. A revoked, disabled or expired key is refused with that reason, one of
// another environment with ErrWrongEnvironment; an imported one gets a successor of
// the native form.
func (m *Manager) RotateKey(ctx context.Context, id ID, rotation Rotation) (Secret, *Key, error) {
	secret, k, err := m.rotate(ctx, id, rotation)
	if err != nil {
		return Secret{}, nil, fmt.Errorf("fob: rotate: %w", err)
	}
	return secret, keyOf(k, k.IssuedAt), nil
}

func (m *Manager) rotate(ctx context.Context, id ID, rotation Rotation) (Secret, *keystate.State, error) {
	if m.life.Closed() {
		return Secret{}, nil, ErrClosed
	}
	if rotation.Overlap < 0 || rotation.TTL < 0 || rotation.QuietTime < 0 ||
		rotation.QuietTime > 0 && rotation.QuietTime < 2*m.cfg.UsageInterval {
		return Secret{}, nil, fmt.Errorf("%w: durations of the rotation", ErrInvalid)
	}
	if rotation.QuietTime > 0 {
		interval, err := m.fleet.UsageInterval(ctx)
		if err != nil {
			return Secret{}, nil, err
		}
		if interval > fleet.DefaultUsageInterval && rotation.QuietTime < 2*interval {
			return Secret{}, nil, fmt.Errorf("%w: quiet time %v, want %v, for usage is written each %v", ErrInvalid, rotation.QuietTime, 2*interval, interval)
		}
	}
	if err := m.peppers.Vouch(ctx); err != nil {
		return Secret{}, nil, err
	}
	r := &rotating{m: m, id: record.ID(id), rotation: rotation, now: m.now(), attempt: newAttempt()}
	if err := retry.Do(ctx, func(bool) error { return r.try(ctx) }); err != nil {
		return Secret{}, nil, err
	}
	m.observe(Event{Type: EventRotated, ID: ID(r.old.ID), Subject: r.old.Subject()})
	m.observe(Event{Type: EventIssued, ID: ID(r.next.ID), Subject: r.next.Subject()})
	return newSecret(r.text), r.next, nil
}

// rotating is one call of RotateKey. Its sequence, each prefix of which is safe to stop
// after:
//
//  1. the old key names its successor-to-be and this attempt; it stays valid.
//  2. the successor is written. Nobody has its secret yet.
//  3. the old key gets its end, if this attempt is still the one it names.
//
// What step 2 may overwrite was read before step 1, so of two attempts at once at most
// one gets through both 2 and 3: the other meets a version it has not read. A later
// attempt finds the name and takes the successor over; its old secret was never handed
// out, because step 3 never came. Of several at once the one that is named last comes
// through, because the others wait for it and do not name themselves again, unless it
// seems to be dead.
type rotating struct {
	m        *Manager
	id       record.ID
	rotation Rotation
	now      time.Time
	attempt  uint64
	named    bool // by the old key, at some time
	waited   int

	old, next *keystate.State
	text      string
}

func (r *rotating) try(ctx context.Context) error {
	m := r.m
	old, err := m.keystore.Read(ctx, r.id)
	if err != nil {
		return err
	}
	epoch, err := m.rotatable(ctx, old, r.now)
	if err != nil {
		return err
	}
	if r.named && old.Rotating != 0 && old.Rotating != r.attempt {
		if r.waited++; r.waited <= waitsFor {
			return retry.Again(errTakenOver)
		}
		r.waited = 0
	}
	next, err := m.successorOf(old, r.rotation, epoch, r.now)
	if err != nil {
		return err
	}
	cond, err := m.placeOf(ctx, old, next, r.now)
	if err != nil {
		return err
	}
	text := keytext.Format(next.Prefix, next.ID, keytext.NewSecret())
	m.digestText(next, text)

	named := *old
	named.Successor, named.Rotating = next.ID, r.attempt
	if err := m.stepOn(ctx, old, &named); err != nil {
		return m.lostTo(ctx, old, err)
	}
	r.named = true
	if next.Version, err = m.records.Replace(ctx, m.keystore.RecordOf(next), cond); err != nil {
		return retry.Raced(err)
	}
	ended := named
	ended.Rotating, ended.RetireAt, ended.Retired = 0, clock.Millis(r.now.Add(r.rotation.Overlap)), r.rotation.Overlap == 0
	if r.rotation.QuietTime > 0 && r.rotation.Overlap > 0 {
		ended.Quiet = r.rotation.QuietTime.Milliseconds()
		if err := m.putRotation(ctx, &ended); err != nil {
			return err
		}
	}
	if err := m.finishRotation(ctx, &named, &ended, next); err != nil {
		return err
	}
	r.old, r.next, r.text = old, next, text
	return nil
}

// lostTo is err, with which a step failed from the state was, unless all that came
// between is another rotation: then it is tried again.
func (m *Manager) lostTo(ctx context.Context, was *keystate.State, err error) error {
	if !errors.Is(err, ErrConflict) {
		return err
	}
	k, lookErr := m.keystore.Read(ctx, was.ID)
	if lookErr == nil && sameButRotation(k, was) {
		return retry.Again(errTakenOver)
	}
	return err
}

// sameButRotation reports whether two states of a key differ at most in what a
// rotation changes, and in the digest.
func sameButRotation(a, b *keystate.State) bool {
	x := *a
	takeRotation(&x, b)
	return sameButDigest(&x, b)
}

// placeOf gives next its ID, and returns the condition under which it is written:
// the place of what an unfinished attempt left, if there is such a thing.
func (m *Manager) placeOf(ctx context.Context, old, next *keystate.State, now time.Time) (backend.Cond, error) {
	next.ID = keytext.NewID(now)
	if old.Rotating == 0 {
		return backend.IfAbsent(), nil
	}
	left, err := m.keystore.Read(ctx, old.Successor)
	switch {
	case errors.Is(err, ErrNotFound):
		next.ID = old.Successor
	case err != nil:
		return backend.Cond{}, err
	case left.Status == keystate.Active:
		next.ID, next.IssuedAt = left.ID, left.IssuedAt // both immutable
		return backend.IfVersion(left.Version), nil
	}
	// Somebody has revoked it, or disabled it, which this rotation may not undo:
	// that ID is not used again.
	return backend.IfAbsent(), nil
}

// stepOn makes of the old key's state was the state is. Any change meanwhile is
// ErrConflict, for the successor does not have it; but a new digest is none, since
// every Verify may write one.
func (m *Manager) stepOn(ctx context.Context, was, is *keystate.State) error {
	_, err := m.keystore.Edit(ctx, was.ID, func(k *keystate.State, _ bool) (bool, error) {
		// What has this attempt's number was written by it, and the answer lost.
		mine := is.Rotating != 0 && sameButDigest(k, is)
		if !mine && !sameButDigest(k, was) {
			return false, ErrConflict
		}
		takeRotation(k, is)
		return true, nil
	})
	return err
}

// takeRotation takes over from another state of the key what a rotation changes.
func takeRotation(k, from *keystate.State) {
	k.Successor, k.Rotating, k.Quiet = from.Successor, from.Rotating, from.Quiet
	k.RetireAt, k.Retired = from.RetireAt, from.Retired
}

// sameButDigest reports whether two states of a key differ at most in the digest.
func sameButDigest(a, b *keystate.State) bool {
	x, y := *a, *b
	x.Digest, x.Pepper, x.ImportedHash = y.Digest, y.Pepper, y.ImportedHash
	return x.Same(&y)
}

// finishRotation is step 3. Whether it was made matters more than how: once the old
// key has its end, the successor is all that its application has. So what is not
// known is looked up, and the successor is dropped only when it surely replaces
// nothing.
func (m *Manager) finishRotation(ctx context.Context, named, ended, next *keystate.State) error {
	err := m.stepOn(ctx, named, ended)
	if err == nil {
		return nil
	}
	old, lookErr := m.keystore.Read(ctx, named.ID)
	switch {
	case lookErr != nil || sameButDigest(old, named):
		return err // if it is not known whether it was made, it still may be
	case old.RetireAt == 0 && sameButRotation(old, named):
		return retry.Again(errTakenOver)
	case old.RetireAt == 0:
		m.dropSuccessor(ctx, next) // not made, and never will be: the key has changed
		return ErrConflict
	case old.Successor != next.ID:
		return errRotated
	}
	// Made: by this attempt, or by another one that has taken the successor over.
	successor, lookErr := m.keystore.Read(ctx, next.ID)
	switch {
	case lookErr != nil:
		return err
	case !Digest{successor.Digest}.Equal(Digest{next.Digest}):
		return errRotated
	}
	// Once more, because what can be read need not be durable.
	_, err = m.keystore.Edit(ctx, old.ID, func(*keystate.State, bool) (bool, error) { return true, nil })
	return errs.Settle(err != nil, err)
}

// dropSuccessor revokes the successor of a rotation that did not come through,
// unless another attempt has taken it over. It is only tidy: nobody has the
// secret.
func (m *Manager) dropSuccessor(ctx context.Context, next *keystate.State) {
	dropped := *next
	dropped.Status, dropped.Reason, dropped.RevokedAt = keystate.Revoked, "rotation not finished", clock.Millis(m.now())
	rec := m.keystore.RecordOf(&dropped)
	_ = m.life.Protect(ctx, func(ctx context.Context) error {
		_, err := m.store.Put(ctx, rec, backend.IfVersion(next.Version))
		if err == nil {
			m.forget(rec.ID)
		}
		return err
	})
}

// errRotated is that somebody else has rotated the key.
var errRotated = fmt.Errorf("%w: rotated already", ErrAlready)

// rotatable says why a key cannot be rotated, or returns its subject's epoch.
func (m *Manager) rotatable(ctx context.Context, k *keystate.State, now time.Time) (uint64, error) {
	if k.RetireAt != 0 {
		return 0, errRotated
	}
	epoch, err := m.marks.ReadEpoch(ctx, k.SubjectRef)
	if err != nil {
		return 0, errs.OfStore("read", err)
	}
	if k.Epoch < epoch {
		return 0, ErrRevoked
	}
	if err := k.Refusal(clock.Millis(now)); err != nil && !errors.Is(err, ErrNotYetValid) {
		return 0, err
	}
	return epoch, nil
}

func (m *Manager) successorOf(old *keystate.State, rotation Rotation, epoch uint64, now time.Time) (*keystate.State, error) {
	prefix, err := m.successorPrefix(old)
	if err != nil {
		return nil, err
	}
	next := &keystate.State{
		Owner:       old.Owner,
		SubjectRef:  old.SubjectRef,
		Epoch:       epoch,
		Prefix:      prefix,
		Name:        old.Name,
		Scopes:      old.Scopes,
		Tags:        old.Tags,
		IssuedAt:    clock.Millis(now),
		NotBefore:   old.NotBefore,
		Status:      keystate.Active,
		Predecessor: old.ID,
		Lifetime:    old.Lifetime,
	}
	if rotation.TTL > 0 {
		next.Lifetime = max(rotation.TTL.Milliseconds(), 1)
	}
	if next.Lifetime > 0 {
		next.ExpiresAt = next.IssuedAt + next.Lifetime
	}
	if next.ExpiresAt != 0 && next.ExpiresAt <= next.NotBefore {
		return nil, fmt.Errorf("%w: the successor would never be valid", ErrInvalid)
	}
	return next, nil
}

// successorPrefix is the prefix of a key's successor: its own, if that is still
// issued. A key of another environment is rotated there.
func (m *Manager) successorPrefix(old *keystate.State) (string, error) {
	switch {
	case !old.Imported && m.issues(old.Prefix):
		return old.Prefix, nil
	case old.Imported || slices.Contains(m.cfg.RetiredPrefixes, old.Prefix):
		return m.cfg.Prefix, nil
	case slices.Contains(m.cfg.OtherPrefixes, old.Prefix):
		return "", ErrWrongEnvironment
	}
	return "", fmt.Errorf("%w: the prefix of the key is none in Config", ErrInvalid)
}

func newAttempt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1
}

// putRotation lets the sweep find a key that may retire early. An attempt that did
// not finish may have left the record, with the deadline of its own.
func (m *Manager) putRotation(ctx context.Context, old *keystate.State) error {
	rec := backend.Record{
		ID:      record.Named(record.Rotation, string(old.ID[:])),
		Kind:    record.Rotation,
		Owner:   old.Owner,
		Created: old.IssuedAt,
		PurgeAt: old.RetireAt + clock.PurgeMargin.Milliseconds(),
	}
	w := record.NewBody()
	w.ID(record.FieldTarget, old.ID)
	w.Finish(&rec)
	return retry.Do(ctx, func(bool) error {
		cond := backend.IfAbsent()
		left, err := m.store.Get(ctx, rec.ID)
		switch {
		case err == nil:
			cond, rec.PurgeAt = backend.IfVersion(left.Version), max(rec.PurgeAt, left.PurgeAt)
		case !errors.Is(err, backend.ErrNotFound):
			return errs.OfStore("read", err)
		}
		_, err = m.records.Replace(ctx, rec, cond)
		return retry.Raced(err)
	})
}
