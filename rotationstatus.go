package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/clock"
)

// RotationStatus tells how far a rotation has come.
type RotationStatus struct {
	Old, Successor           *Key
	OldUsage, SuccessorUsage Usage
	// RetiresAt is when the old key ends at the latest, or ended.
	RetiresAt time.Time
	// Retired: the old key is no longer accepted.
	Retired bool
	// OldStillUsed: the old key was used after the successor was first issued, so
	// somebody has not changed over. A use within the same millisecond does not
	// count: it may be the one that asked for the rotation.
	OldStillUsed bool
}

// RotationStatus reports on the rotation of a key: whether the old one is still
// used, by its subject, and when it ends. id is the old key's. A key that was
// not rotated is ErrNotFound.
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
	s.Retired = reason != nil && !errors.Is(reason, ErrNotYetValid)
	s.OldStillUsed = s.OldUsage.LastUsedAt.After(s.Successor.IssuedAt())
	return s, nil
}
