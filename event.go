package fob

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/fobkit/fob/internal/guard"
)

// Event is one thing that happened to a credential or to the Manager's upkeep,
// for audit and metrics. It holds no secret and no digest.
type Event struct {
	Type EventType
	At   time.Time
	// ID is the credential, and Other the successor of a rotation. Both are zero if the event
	// is about something else.
	ID, Other ID
	Subject   Subject // the zero Subject where unknown, or if the event is about an account
	// Target is what was revoked, disabled or enabled. Epoch is set if that was a subject or
	// an account, see Revocation.
	Target Target
	Epoch  uint64
	// Before and After are the key before and after a change, as far as it was one and they
	// are known.
	Before, After *Key
	Reason        RevokeReason
	Count         int // of revocations: see EventCatchingUp
	// Err is why something failed, for the types that report a failure. For a revocation,
	// UpdateKey, Disable and Enable it is ErrIndeterminate if the change may have been
	// made, in whole or in part; a repeat that finds the change made reports no other
	// event. Otherwise it is nil.
	Err error
}

// EventType says what happened. The zero EventType is invalid.
type EventType uint8

// The types of event.
const (
	EventIssued EventType = 1 + iota
	EventImported
	EventUpdated
	EventRotated // ID is the old key
	EventRetired // a rotated key retired early, after its quiet time
	EventRehashed
	EventRevoked  // Target, for good
	EventDisabled // Target, until EventEnabled
	EventEnabled
	// EventUpkeepFailed: a background task failed and will be tried again.
	EventUpkeepFailed
	// EventUsageLost: usage counts were dropped, because the store could not say whether
	// it had added them. A count is rather too low than too high.
	EventUsageLost
	EventTokenKeyRotated
	// EventFeedLost: the store's feed broke off, or could not be followed; the Manager
	// tries again. See [Manager.Health].
	EventFeedLost
	EventFeedResumed // the feed that was lost is followed again
	// EventCatchingUp: Count revocations of the store have been read into memory so far. It is
	// reported once a second while that lasts, and not at all if it takes less than a second.
	EventCatchingUp
	EventCaughtUp // all have been read, Count of them; only after an EventCatchingUp
	// EventReplayed: a refresh secret was used again, so the session (ID) was revoked.
	EventReplayed
)

var eventNames = [...]string{
	"invalid", "issued", "imported", "updated", "rotated", "retired", "rehashed",
	"revoked", "disabled", "enabled", "upkeep_failed", "usage_lost",
	"token_key_rotated", "feed_lost", "feed_resumed", "catching_up", "caught_up", "replayed",
}

// String returns the type in lower snake case.
func (t EventType) String() string {
	if int(t) >= len(eventNames) {
		t = 0
	}
	return eventNames[t]
}

// Observer receives events. Observe is called by the goroutine that made the change,
// after the change is durable (or in doubt, see Event.Err). It must not block, and must
// be safe for concurrent use. A change in doubt is reported twice rather than never. If
// Observe panics, the call that reports the event panics too, but the Manager's own
// goroutines go on. A verification is no event, so that it costs nothing.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc is a function as an Observer.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// report is observe for the Manager's own goroutines. A panic of the Observer is dropped
// there, because there is nobody left to be told of it.
func (m *Manager) report(e Event) {
	_ = guard.Run("", func() error {
		m.observe(m.life.Context(), e)
		return nil
	})
}

func (m *Manager) observe(ctx context.Context, e Event) {
	if m.cfg.Observer == nil {
		return
	}
	if e.At.IsZero() {
		e.At = m.now().UTC()
	}
	m.cfg.Observer.Observe(ctx, e)
}

// observeOutcome reports a change that was made, or, by ErrIndeterminate, may have been.
func (m *Manager) observeOutcome(ctx context.Context, e Event, err error) {
	if err == nil || errors.Is(err, ErrIndeterminate) {
		e.Err = err
		m.observe(ctx, e)
	}
}

// LogEvents returns an Observer that writes each event to logger, failures as warnings.
// For a nil logger it returns an Observer that [New] refuses.
func LogEvents(logger *slog.Logger) Observer {
	if logger == nil {
		return ObserverFunc(nil)
	}
	return ObserverFunc(func(ctx context.Context, e Event) {
		level, attrs := slog.LevelInfo, make([]slog.Attr, 0, 8)
		add := func(attr slog.Attr, set bool) {
			if set {
				attrs = append(attrs, attr)
			}
		}
		add(slog.String("id", e.ID.String()), !e.ID.IsZero())
		add(slog.String("successor", e.Other.String()), !e.Other.IsZero())
		add(slog.Any("subject", e.Subject), e.Subject != Subject{})
		if e.Target != nil {
			add(slog.String("target", e.Target.String()), true)
		}
		add(slog.Uint64("epoch", e.Epoch), e.Epoch != 0)
		add(slog.String("reason", string(e.Reason)), e.Reason != "")
		add(slog.Int("count", e.Count), e.Count != 0)
		if e.Err != nil {
			level = slog.LevelWarn
			add(slog.Any("error", e.Err), true)
		}
		logger.LogAttrs(ctx, level, "fob: "+e.Type.String(), attrs...)
	})
}
