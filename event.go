package fob

import (
	"log/slog"
	"time"
)

// Event is one thing that happened to a credential or to the Manager's upkeep,
// for audit and metrics. It holds no secret and no digest.
type Event struct {
	Type    EventType
	At      time.Time
	ID      ID     // the credential; zero if the event is about a subject or upkeep
	Subject string // "" where unknown
	// SubjectKind and Epoch (see Revocation) are set if the event is about a whole
	// subject.
	SubjectKind SubjectKind
	Epoch       uint64
	Reason      RevokeReason
	Count       int // of revocations: see EventCatchingUp
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
	EventRevoked
	EventSubjectRevoked
	EventDisabled
	EventEnabled
	// EventUpkeepFailed: a background task failed and will be tried again.
	EventUpkeepFailed
	// EventUsageLost: usage counts were dropped, because the store could not say whether
	// it had added them. A count is rather too low than too high.
	EventUsageLost
	EventTokenKeyRotated
	EventTokensRevoked // all that the issuer issued before an instant
	// EventFeedLost: the store's feed broke off, or could not be followed; the Manager
	// tries again. See [Manager.Health].
	EventFeedLost
	EventFeedResumed // the feed that was lost is followed again
	// EventCatchingUp: Count revocations of the store have been read into memory so far. It is
	// reported once a second while that lasts, and not at all if it takes less than a second.
	EventCatchingUp
	EventCaughtUp // all have been read, Count of them; only after an EventCatchingUp
)

var eventNames = [...]string{
	"invalid", "issued", "imported", "updated", "rotated", "retired", "rehashed",
	"revoked", "subject_revoked", "disabled", "enabled", "upkeep_failed", "usage_lost",
	"token_key_rotated", "tokens_revoked", "feed_lost", "feed_resumed", "catching_up", "caught_up",
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
	Observe(Event)
}

// ObserverFunc is a function as an Observer.
type ObserverFunc func(Event)

// Observe calls f.
func (f ObserverFunc) Observe(e Event) { f(e) }

// LogEvents returns an Observer that writes each event to logger, failures as warnings.
// For a nil logger it returns an Observer that [New] refuses.
func LogEvents(logger *slog.Logger) Observer {
	if logger == nil {
		return ObserverFunc(nil)
	}
	return ObserverFunc(func(e Event) {
		args := make([]any, 0, 14)
		if !e.ID.IsZero() {
			args = append(args, "id", e.ID.String())
		}
		if e.Subject != "" {
			args = append(args, "subject", e.Subject)
		}
		if e.SubjectKind != 0 {
			args = append(args, "subject_kind", e.SubjectKind.String())
		}
		if e.Epoch != 0 {
			args = append(args, "epoch", e.Epoch)
		}
		if e.Reason != "" {
			args = append(args, "reason", string(e.Reason))
		}
		if e.Count != 0 {
			args = append(args, "count", e.Count)
		}
		if e.Err != nil {
			logger.Warn("fob: "+e.Type.String(), append(args, "error", e.Err)...)
			return
		}
		logger.Info("fob: "+e.Type.String(), args...)
	})
}
