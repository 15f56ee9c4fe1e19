package fob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fobkit/fob/internal/guard"
)

// Event is one thing that happened to a credential or to the Manager's upkeep, for audit and
// metrics. It holds no secret and no digest. Every change of a credential, an account, a
// subject or the token keys has one.
type Event struct {
	Type EventType
	At   time.Time
	// ID is the credential or session that was acted on, and Other what came of it: the
	// successor of a key, the token of an exchange or a refresh, the session of a token. Each
	// is zero if there is none, or if it is not known.
	ID, Other ID
	// Subject is whose it is, and Account the account of the subject, or the one that was
	// acted on. They are zero if there is none, or if it is not known.
	Subject Subject
	Account Account
	// Target is what was revoked, disabled or enabled. Epoch is set if that was a subject or
	// an account, see Revocation.
	Target Target
	Epoch  uint64
	// Before and After are the key before and after a change, as far as it was one and they
	// are known. Token is the token that was issued.
	Before, After *Key
	Token         *Token
	// Actor is who made the change: that of the context ([WithActor]). It is zero for what a
	// Manager does by itself.
	Actor  Actor
	Reason RevokeReason
	Count  int           // of revocations: see EventCatchingUp
	Idle   time.Duration // without use, before an EventUsedAgain
	// Err is why something failed, for the types that report a failure. For a change it is
	// ErrIndeterminate if the change may have been made, in whole or in part; a repeat that
	// finds it made reports no other event. Otherwise it is nil.
	Err error
}

// EventType says what happened. The zero EventType is invalid.
type EventType uint8

// The types of event.
const (
	EventIssued   EventType = 1 + iota // a key (After), or a token (Token) and its session
	EventImported                      // a key of another system
	EventUpdated
	EventRotated // ID is the old key
	EventRetired // a rotated key (ID) retired early, after its quiet time
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
	EventExchanged // a key (ID) for a token (Other)
	// EventRefreshed: a session (ID) has got a new token (Other). A secret that was used
	// lately, and so gets the same token once more, is reported once more.
	EventRefreshed
	// EventSuccessorUsed: the successor (Other) of a rotated key (ID) was used for the first
	// time. This type and the next are told when usage is written (Config.UsageInterval), and
	// only by a store that keeps it. At is when that was; the use came before. If several
	// processes write the first use at the same time, each of them reports it.
	EventSuccessorUsed
	// EventUsedAgain: a key was used that had not been used for 30 days or longer (Idle), or
	// never since it was issued so long ago.
	EventUsedAgain
)

var eventNames = [...]string{
	"invalid", "issued", "imported", "updated", "rotated", "retired", "rehashed",
	"revoked", "disabled", "enabled", "upkeep_failed", "usage_lost",
	"token_key_rotated", "feed_lost", "feed_resumed", "catching_up", "caught_up", "replayed",
	"exchanged", "refreshed", "successor_used", "used_again",
}

// String returns the type in lower snake case.
func (t EventType) String() string {
	if int(t) >= len(eventNames) {
		t = 0
	}
	return eventNames[t]
}

// MarshalText returns what String returns.
func (t EventType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Actor is who makes a change, for the events of it. Every field may be empty.
type Actor struct {
	Credential Credential // with which the request was made
	Name       string     // a person, a job or a program
	Address    string     // from which the request came
}

type actorKey struct{}

// WithActor returns a context whose changes are reported as those of an actor. If the actor
// has no Credential, it is the one that [NewContext] has put into the context, if any; a
// context without WithActor has that one as its actor, too. So behind the middleware every
// change has an actor.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

func actorOf(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if guard.Missing(a.Credential) {
		a.Credential, _ = FromContext(ctx)
	}
	if guard.Missing(a.Credential) {
		a.Credential = nil
	}
	return a
}

// LogValue returns the actor as a group, with the ID and the subject of its credential.
func (a Actor) LogValue() slog.Value {
	var attrs []slog.Attr
	if a.Credential != nil {
		attrs = append(attrs, slog.String("id", a.Credential.ID().String()), slog.Any("subject", a.Credential.Subject()))
	}
	for _, text := range []slog.Attr{slog.String("name", a.Name), slog.String("address", a.Address)} {
		if text.Value.String() != "" {
			attrs = append(attrs, text)
		}
	}
	return slog.GroupValue(attrs...)
}

// Observer receives events. Observe is called by the goroutine that made the change,
// after the change is durable (or in doubt, see Event.Err), with the context of the call. It
// must not block, and must be safe for concurrent use. A change in doubt is reported twice
// rather than never. An Observer that panics loses the event, and nothing else: the change
// stays made, its call returns as ever, and Health.EventsLost counts the event. A
// verification is no event, so that it costs nothing.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc is a function as an Observer.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// Observers returns an Observer that gives each event to every one of several, in order. If
// one of them panics, the others get the event all the same. If one of them is nil, it
// returns an Observer that [New] refuses.
func Observers(observers ...Observer) Observer {
	observers = slices.Clone(observers)
	if slices.ContainsFunc(observers, func(o Observer) bool { return guard.Missing(o) }) {
		return ObserverFunc(nil)
	}
	return ObserverFunc(func(ctx context.Context, e Event) { observeEach(ctx, e, observers) })
}

// observeEach calls the others although one panics. That panic goes up when all have been
// called.
func observeEach(ctx context.Context, e Event, observers []Observer) {
	if len(observers) > 0 {
		defer observeEach(ctx, e, observers[1:])
		observers[0].Observe(ctx, e)
	}
}

// report is observe for the Manager's own goroutines.
func (m *Manager) report(e Event) { m.observe(m.life.Context(), e) }

// observe gives an event to the Observer, if there is one. It never fails: what it is called
// for has been done already.
func (m *Manager) observe(ctx context.Context, e Event) {
	if m.cfg.Observer == nil {
		return
	}
	err := guard.Run("", func() error {
		if e.At.IsZero() {
			e.At = m.now().UTC()
		}
		if account, ok := e.Target.(Account); ok {
			e.Account = account
		} else {
			e.Account = e.Subject.Account
		}
		e.Actor = actorOf(ctx)
		m.cfg.Observer.Observe(ctx, e)
		return nil
	})
	if err != nil {
		m.events.Lost(fmt.Errorf("fob: observer: %s: %w", e.Type, err))
	}
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
		level, attrs := slog.LevelInfo, make([]slog.Attr, 0, 12)
		add := func(attr slog.Attr, set bool) {
			if set {
				attrs = append(attrs, attr)
			}
		}
		add(slog.String("id", e.ID.String()), !e.ID.IsZero())
		add(slog.String(e.Type.other(), e.Other.String()), !e.Other.IsZero())
		add(slog.Any("subject", e.Subject), e.Subject != Subject{})
		add(slog.String("account", string(e.Account)), e.Account != "")
		add(slog.String("target", e.targetText()), e.Target != nil)
		add(slog.Any("actor", e.Actor), e.Actor != Actor{})
		add(slog.Uint64("epoch", e.Epoch), e.Epoch != 0)
		add(slog.String("reason", string(e.Reason)), e.Reason != "")
		add(slog.Int("count", e.Count), e.Count != 0)
		add(slog.Duration("idle", e.Idle), e.Idle != 0)
		if e.Err != nil {
			level = slog.LevelWarn
			add(slog.Any("error", e.Err), true)
		}
		logger.LogAttrs(ctx, level, "fob: "+e.Type.String(), attrs...)
	})
}

// other is what Event.Other is for events of a type.
func (t EventType) other() string {
	switch t {
	case EventIssued:
		return "session"
	case EventExchanged, EventRefreshed:
		return "token"
	}
	return "successor"
}

// targetText is the target with what it is.
func (e *Event) targetText() string {
	switch t := e.Target.(type) {
	case nil:
		return ""
	case ID:
		return "id " + t.String()
	case Account:
		return "account " + t.String()
	}
	return e.Target.String()
}
