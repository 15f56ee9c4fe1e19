package fob

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/keytext"
)

// Rotation says how a key gives way to its successor.
type Rotation struct {
	// Overlap is how long the old key is still accepted. Zero: not at all.
	Overlap time.Duration
	// QuietTime, if set, retires the old key before the end of the overlap, once
	// the successor has been used and the old key has not been for this long. At
	// least twice Config.UsageInterval, because usage is written behind.
	QuietTime time.Duration
	// TTL is the lifetime of the successor; zero: the lifetime that the old key
	// was issued with, if any.
	TTL time.Duration
}

// RotateKey replaces a key: it issues a successor of the same subject, name,
// scopes and tags, and ends the old key when the overlap is over. It returns the
// successor's secret, shown this once, and the successor.
//
// A rotation that failed or was cut off can be called again: the old key stays
// valid until a rotation has returned, and the unfinished successor is taken
// over. ErrConflict means that another rotation of this key ran meanwhile, or
// that it has been rotated: rotate its successor. A revoked, disabled or
// expired key is refused with that reason; an imported one gets a successor of
// the native form.
func (m *Manager) RotateKey(ctx context.Context, id ID, rotation Rotation) (Secret, *Key, error) {
	secret, k, err := m.rotate(ctx, id, rotation)
	if err != nil {
		return Secret{}, nil, fmt.Errorf("fob: rotate: %w", err)
	}
	return secret, k, nil
}

func (m *Manager) rotate(ctx context.Context, id ID, rotation Rotation) (Secret, *Key, error) {
	if m.closed.Load() {
		return Secret{}, nil, ErrClosed
	}
	if rotation.Overlap < 0 || rotation.TTL < 0 || rotation.QuietTime < 0 ||
		rotation.QuietTime > 0 && rotation.QuietTime < 2*m.cfg.UsageInterval {
		return Secret{}, nil, fmt.Errorf("%w: durations of the rotation", ErrInvalid)
	}
	now := m.now()
	old, err := m.readKey(ctx, id)
	if err != nil {
		return Secret{}, nil, err
	}
	epoch, err := m.rotatable(ctx, old, now)
	if err != nil {
		return Secret{}, nil, err
	}
	next := m.successorOf(old, rotation, epoch, now)

	// The sequence, each prefix of which is safe to stop after:
	//  1. the old key names its successor-to-be and this attempt; it stays valid.
	//  2. the successor is written. Nobody has its secret yet.
	//  3. the old key gets its end, if this attempt is still the one it names.
	// What step 2 may overwrite was read before step 1, so of two attempts at
	// once at most one gets through both 2 and 3: the other meets a version it
	// has not read. A later attempt finds the name and takes the successor over;
	// its old secret was never handed out, because step 3 never came.
	cond := backend.IfAbsent()
	next.id = ID(keytext.NewID(now))
	if old.rotating != 0 {
		switch left, err := m.readKey(ctx, old.successor); {
		case err == nil && left.status == StatusRevoked:
			// Revoked is for good: that ID is not used again.
		case err == nil:
			next.id, cond = left.id, backend.IfVersion(left.version)
			next.issuedAt = left.issuedAt // immutable
		case errors.Is(err, ErrNotFound):
			next.id = old.successor
		default:
			return Secret{}, nil, err
		}
	}
	text := keytext.Format(next.prefix, next.id, keytext.NewSecret())
	m.digestText(next, text)

	attempt, version := newAttempt(), old.version
	old.successor, old.rotating = next.id, attempt
	if version, err = m.replace(ctx, encodeKey(old, m.purgeAt(old)), backend.IfVersion(version)); err != nil {
		return Secret{}, nil, err
	}
	if next.version, err = m.replace(ctx, encodeKey(next, m.purgeAt(next)), cond); err != nil {
		return Secret{}, nil, err
	}
	retireAt := millis(now.Add(rotation.Overlap))
	if rotation.QuietTime > 0 && rotation.Overlap > 0 {
		if err := m.putRotation(ctx, old, retireAt); err != nil {
			return Secret{}, nil, err
		}
		old.quiet = rotation.QuietTime.Milliseconds()
	}
	old.rotating, old.retireAt = 0, retireAt
	if _, err = m.replace(ctx, encodeKey(old, m.purgeAt(old)), backend.IfVersion(version)); err != nil {
		m.dropSuccessor(ctx, next)
		return Secret{}, nil, err
	}
	m.observe(Event{Type: EventRotated, ID: old.id, Subject: old.subject})
	m.observe(Event{Type: EventIssued, ID: next.id, Subject: next.subject})
	return newSecret(text), next, nil
}

// dropSuccessor revokes the successor of a rotation that did not come through,
// unless another attempt has taken it over. It is only tidy: nobody has the
// secret.
func (m *Manager) dropSuccessor(ctx context.Context, next *Key) {
	dropped := *next
	dropped.status, dropped.reason, dropped.revokedAt = StatusRevoked, "rotation not finished", millis(m.now())
	rec := encodeKey(&dropped, m.purgeAt(&dropped))
	if _, err := m.store.Put(ctx, rec, backend.IfVersion(next.version)); err == nil {
		m.forget(rec.ID)
	}
}

// rotatable says why a key cannot be rotated, or returns its subject's epoch.
func (m *Manager) rotatable(ctx context.Context, k *Key, now time.Time) (uint64, error) {
	if k.retireAt != 0 {
		return 0, fmt.Errorf("%w: rotated already", ErrConflict)
	}
	epoch, _, err := m.readEpoch(ctx, k.subjectRef)
	if err != nil {
		return 0, storeError("read", err)
	}
	if k.epoch < epoch {
		return 0, ErrRevoked
	}
	if err := k.refusal(millis(now)); err != nil && !errors.Is(err, ErrNotYetValid) {
		return 0, err
	}
	return epoch, nil
}

func (m *Manager) successorOf(old *Key, rotation Rotation, epoch uint64, now time.Time) *Key {
	next := &Key{
		subject:     old.subject,
		subjectKind: old.subjectKind,
		subjectRef:  old.subjectRef,
		epoch:       epoch,
		prefix:      old.prefix,
		name:        old.name,
		scopes:      old.scopes,
		tags:        old.tags,
		issuedAt:    millis(now),
		notBefore:   old.notBefore,
		status:      StatusActive,
		predecessor: old.id,
		lifetime:    old.lifetime,
	}
	if !m.issues(next.prefix) {
		next.prefix = m.cfg.Prefix // imported, or of a prefix retired since
	}
	if rotation.TTL > 0 {
		next.lifetime = max(rotation.TTL.Milliseconds(), 1)
	}
	if next.lifetime > 0 {
		next.expiresAt = next.issuedAt + next.lifetime
	}
	return next
}

func newAttempt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1
}

// putRotation lets the sweep find a key that may retire early.
func (m *Manager) putRotation(ctx context.Context, old *Key, retireAt int64) error {
	rec := backend.Record{
		ID:      namedRecord(recordRotation, string(old.id[:])),
		Kind:    recordRotation,
		Owner:   owner(old.subjectKind, old.subject),
		Created: old.issuedAt,
		PurgeAt: retireAt,
	}
	w := newBody()
	w.id(fieldTarget, old.id)
	w.seal(&rec)
	_, err := m.create(ctx, rec)
	if errors.Is(err, ErrConflict) {
		return nil // left by an attempt that did not finish; it says the same
	}
	return err
}

// RotationStatus tells how far a rotation has come.
type RotationStatus struct {
	Old, Successor           *Key
	OldUsage, SuccessorUsage Usage
	// RetiresAt is when the old key ends at the latest, or ended.
	RetiresAt time.Time
	// Retired: the old key is no longer accepted.
	Retired bool
	// OldStillUsed: the old key was used after the successor was first issued, so
	// somebody has not changed over.
	OldStillUsed bool
}

// RotationStatus reports on the rotation of a key: whether the old one is still
// used, by its subject, and when it ends. id is the old key's. A key that was
// not rotated is ErrNotFound.
func (m *Manager) RotationStatus(ctx context.Context, id ID) (RotationStatus, error) {
	if m.closed.Load() {
		return RotationStatus{}, ErrClosed
	}
	s, err := m.rotationStatus(ctx, id)
	if err != nil {
		return RotationStatus{}, fmt.Errorf("fob: rotation status: %w", err)
	}
	return s, nil
}

func (m *Manager) rotationStatus(ctx context.Context, id ID) (s RotationStatus, err error) {
	if s.Old, err = m.readKey(ctx, id); err != nil {
		return s, err
	}
	if s.Old.retireAt == 0 {
		return s, fmt.Errorf("%w: not rotated", ErrNotFound)
	}
	if s.Successor, err = m.readKey(ctx, s.Old.successor); err != nil {
		return s, err
	}
	usage, err := m.usageOf(ctx, s.Old.id, s.Successor.id)
	if err != nil {
		return s, err
	}
	s.OldUsage, s.SuccessorUsage = usage[0], usage[1]
	s.RetiresAt = instant(s.Old.endsAt())
	s.Retired = s.Old.refusal(millis(m.now())) != nil
	s.OldStillUsed = s.OldUsage.LastUsedAt.After(s.Successor.IssuedAt())
	return s, nil
}
