package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rotation"
)

// Rotation says how a key gives way to its successor.
type Rotation struct {
	// Overlap is how long the old key is still accepted, by the clock of whoever
	// verifies it. Zero: not at all, whatever any clock says.
	Overlap time.Duration
	// QuietTime, if set, retires the old key before the end of the overlap: once the
	// successor has been used, and neither the old key nor a token that it was exchanged
	// for has been used for this long. It must be at least twice the largest
	// Config.UsageInterval of the processes on the store, because usage is written with
	// that delay; less than 2 minutes counts as 2 minutes.
	QuietTime time.Duration
	// TTL is the lifetime of the successor. Zero means the lifetime that the old key was
	// issued with, or that UpdateKey has given it since, if any. The successor must
	// outlast the old key's NotBefore, else ErrInvalid.
	TTL time.Duration
}

// RotateKey replaces a key: it issues a successor of the same subject, name,
// scopes and tags, and ends the old key when the overlap is over. It returns the
// successor's secret, shown this once, and the successor.
//
// A rotation that failed or was cut off can be called again: the old key stays as it is
// until the last step, and the unfinished successor is used again. Only if the error was
// ErrIndeterminate, or the call never returned, may the last step have been done. A
// second call then fails with ErrAlready; nobody has the successor's secret, and the
// successor (Key.Successor of the old key) can be rotated in its turn.
//
// Otherwise ErrAlready means that somebody else has rotated the key, now or before: of
// several rotations at once only one succeeds. Rotate the successor instead. Any other
// ErrConflict means that the key was changed meanwhile. A revoked, disabled or expired
// key is refused with that reason, and a key of another environment with
// a rejection (see [Reason]). An imported key gets a successor of the native form.
func (m *Manager) RotateKey(ctx context.Context, id ID, rotation Rotation) (Secret, *Key, error) {
	asOf := clock.Millis(m.now())
	secret, k, err := m.rotate(ctx, id, rotation)
	if err != nil {
		m.observeOutcome(ctx, Event{Type: EventRotated, ID: id}, err)
		return Secret{}, nil, fmt.Errorf("fob: rotate: %w", err)
	}
	return secret, m.keyOf(k, asOf), nil
}

func (m *Manager) rotate(ctx context.Context, id ID, terms Rotation) (Secret, *keystate.State, error) {
	if m.life.Closed() {
		return Secret{}, nil, ErrClosed
	}
	if terms.Overlap < 0 || terms.TTL < 0 || terms.QuietTime < 0 ||
		terms.QuietTime > 0 && terms.QuietTime < 2*m.cfg.UsageInterval {
		return Secret{}, nil, fmt.Errorf("%w: durations of the rotation", ErrInvalid)
	}
	if terms.QuietTime > 0 {
		interval, err := m.fleet.UsageInterval(ctx)
		if err != nil {
			return Secret{}, nil, err
		}
		if interval > fleet.DefaultUsageInterval && terms.QuietTime < 2*interval {
			return Secret{}, nil, fmt.Errorf("%w: quiet time %v, want %v, for usage is written each %v", ErrInvalid, terms.QuietTime, 2*interval, interval)
		}
	}
	if err := m.peppers.Vouch(ctx); err != nil {
		return Secret{}, nil, err
	}
	text, old, next, err := m.rotator.Rotate(ctx, record.ID(id), rotation.Terms(terms))
	if err != nil {
		return Secret{}, nil, err
	}
	before, after := m.keyOf(old, 0), m.keyOf(next, 0)
	m.observe(ctx, Event{Type: EventRotated, ID: before.ID(), Other: after.ID(), Subject: before.Subject(), Before: before, After: after})
	return newSecret(text), next, nil
}

// newRotator makes the part that rotates keys.
func (m *Manager) newRotator() *rotation.Rotator {
	return &rotation.Rotator{
		Keys: &m.keystore, Clock: &m.clock, Life: &m.life,
		Stamp: m.stampOf, Prefix: m.successorPrefix, StoreDigest: m.digestText,
	}
}

// newRotationSweeper makes the part that retires rotated keys early.
func (m *Manager) newRotationSweeper() *rotation.Sweeper {
	return rotation.NewSweeper(rotation.Config{
		Keys: &m.keystore, Clock: &m.clock, Fleet: m.fleet, Interval: m.cfg.UsageInterval, Usage: m.tallies,
		Retired: func(old *keystate.State) {
			m.observe(m.life.Context(), Event{Type: EventRetired, ID: ID(old.ID), Other: ID(old.Successor), Subject: subjectOf(old.Owner), After: m.keyOf(old, 0)})
		},
	})
}

// successorPrefix is the prefix of a key's successor: that of the key, if it is still
// issued, else Config.Prefix. A key of another environment has to be rotated there.
func (m *Manager) successorPrefix(old *keystate.State) (string, error) {
	switch {
	case !old.Imported && m.issues(old.Prefix):
		return old.Prefix, nil
	case old.Imported || slices.Contains(m.cfg.RetiredPrefixes, old.Prefix):
		return m.cfg.Prefix, nil
	case slices.Contains(m.cfg.OtherPrefixes, old.Prefix):
		return "", errs.ErrWrongEnvironment
	}
	return "", fmt.Errorf("%w: the prefix of the key is none in Config", ErrInvalid)
}

// RotationStatus tells how far a rotation has come.
type RotationStatus struct {
	Old, Successor           *Key
	OldUsage, SuccessorUsage Usage
	// RetiresAt is when the old key ends at the latest, or ended.
	RetiresAt time.Time
	// Retired says that the old key is no longer accepted.
	Retired bool
	// OldStillUsed says that the old key was used after the successor was first issued, so
	// somebody has not changed over. A use within the same millisecond does not count,
	// because it may be the one that asked for the rotation.
	OldStillUsed bool
}

// RotationStatus reports on the rotation of a key: whether the old key is still used, and
// when it ends. id is that of the old key. A key that was not rotated is ErrNotFound.
func (m *Manager) RotationStatus(ctx context.Context, id ID) (RotationStatus, error) {
	if m.life.Closed() {
		return RotationStatus{}, ErrClosed
	}
	s, err := m.rotationStatus(ctx, id)
	if err != nil {
		return RotationStatus{}, fmt.Errorf("fob: rotation status: %w", err)
	}
	return s, nil
}

func (m *Manager) rotationStatus(ctx context.Context, id ID) (s RotationStatus, err error) {
	if s.Old, err = m.currentKey(ctx, id); err != nil {
		return s, err
	}
	if s.Old.state.RetireAt == 0 {
		return s, fmt.Errorf("%w: not rotated", ErrNotFound)
	}
	if s.Successor, err = m.currentKey(ctx, ID(s.Old.state.Successor)); err != nil {
		return s, err
	}
	usage, err := m.usageOf(ctx, ID(s.Old.state.ID), ID(s.Successor.state.ID))
	if err != nil {
		return s, err
	}
	s.OldUsage, s.SuccessorUsage = usage[0], usage[1]
	s.RetiresAt = clock.Instant(s.Old.state.EndsAt())
	reason := s.Old.state.Refusal(clock.Millis(m.now()))
	s.Retired = reason != nil && !errors.Is(reason, errs.ErrNotYetValid)
	s.OldStillUsed = s.OldUsage.LastUsedAt.After(s.Successor.IssuedAt())
	return s, nil
}
