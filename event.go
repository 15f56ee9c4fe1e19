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
	ID      ID     // the credential; zero where it is about a subject or upkeep
	Subject string // "" where unknown
	// SubjectKind and Epoch are set where the event is about a whole subject; Epoch
	// is what Revocation.Epoch is.
	SubjectKind SubjectKind
	Epoch       uint64
	Reason      RevokeReason
	// Err is why it failed, for the types that say so. For a revocation, Disable and
	// Enable it is ErrIndeterminate where the store could not say what became of the
	// change: it was made, or may have been, and a repeat that finds it made reports
	// nothing more. Else nil.
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
	// EventUsageLost: usage counts were dropped, because the store could not
	// say whether it had added them: rather too few than too many.
	EventUsageLost
	EventTokenKeyRotated
	EventTokensRevoked // all of the issuer, before an instant
	// EventFeedLost: the store's feed broke off, or could not be followed; it is tried
	// again. See Manager.Health.
	EventFeedLost
	EventFeedResumed // the feed that was lost is followed again
)

var eventNames = [...]string{
	"invalid", "issued", "imported", "updated", "rotated", "retired", "rehashed",
	"revoked", "subject_revoked", "disabled", "enabled", "upkeep_failed", "usage_lost",
	"token_key_rotated", "tokens_revoked", "feed_lost", "feed_resumed",
}

// String returns the type in lower snake case.
func (t EventType) String() string {
	if int(t) >= len(eventNames) {
		t = 0
	}
	return eventNames[t]
}

// Observer receives events. It is called from the goroutine that did the work,
// after the change is durable (or in doubt, see Event.Err), and must not block; it
// is safe for concurrent use. A change in doubt is reported twice rather than never. If it
// panics, its caller does, but nothing in the background ends.
// Verify reports no events: it costs nothing.
type Observer interface {
	Observe(Event)
}

// ObserverFunc is a function as an Observer.
type ObserverFunc func(Event)

// Observe calls f.
func (f ObserverFunc) Observe(e Event) { f(e) }

// LogEvents returns an Observer that writes each event to logger, failures as
// warnings. With a nil logger it is an Observer that New refuses.
func LogEvents(logger *slog.Logger) Observer {
	if logger == nil {
		return ObserverFunc(nil)
	}
	return ObserverFunc(func(e Event) {
		args := make([]any, 0, 12)
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
		if e.Err != nil {
			logger.Warn("fob: "+e.Type.String(), append(args, "error", e.Err)...)
			return
		}
		logger.Info("fob: "+e.Type.String(), args...)
	})
}
