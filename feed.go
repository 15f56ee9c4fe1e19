package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/feed"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/recent"
	"github.com/fobkit/fob/internal/record"
)

// maxProofEvery is the longest time between two proofs that the feed is asked for. It
// decides what an idle process costs its store.
const maxProofEvery = 500 * time.Millisecond

// followFeed brings the changes that the store's feed reports into memory until ctx ends.
// While the feed is lost, cached answers grow old, and are read again when they are
// needed.
func (m *Manager) followFeed(ctx context.Context, watcher backend.Watcher) {
	m.joinFleet(ctx)
	ctx = backend.WithProofEvery(ctx, min(m.cfg.MaxStaleness/4, maxProofEvery))
	f := feed.Follower{
		Watcher: watcher,
		Begin:   m.startFeed,
		Apply:   m.applyChanges,
		Proved:  m.proved,
		Lost: func(err error) {
			m.health.Lost(err, m.now())
			m.report(Event{Type: EventFeedLost, Err: err})
		},
	}
	f.Run(ctx)
}

// proved notes that this Manager knows every change made before an instant of the
// machine's clock.
func (m *Manager) proved(at time.Time) {
	m.engine.Proven(m.clock.MonoOf(at))
	if m.health.Proved(m.clock.Now()) {
		m.report(Event{Type: EventFeedResumed})
	}
}

// startFeed drops everything that is in memory, because the feed may have missed changes
// until now; from now on it misses none. The marks are read anew by fillMarks, and until
// that is done a verification reads those that it needs from the store.
func (m *Manager) startFeed(ctx context.Context) error {
	m.engine.FeedBegins()
	if again := m.health.Begun(); again {
		// The feed's history was lost, and perhaps writes too, for example in a failover.
		m.fleet.Leave()
		m.joinFleet(ctx)
		if err := m.reapply(ctx); err != nil {
			return err
		}
	}
	m.marks.Begin()
	m.ringChanged(ctx) // it may have changed
	m.engine.Clear()
	return nil
}

// applyChanges brings the changes that the feed has reported into memory. It reads nothing
// of what revokes: a mark that has changed is unknown from now on, so that a verification
// that needs it reads it from the store, until settleMarks has read it. However many
// revocations come at once, each holds here when this has returned.
func (m *Manager) applyChanges(ctx context.Context, changes []backend.Change) error {
	ids := make([]backend.ID, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
	}
	m.marks.Name(ids, m.engine.Now())
	m.forget(ids...) // after the marks: an answer made meanwhile is made from old marks
	for _, id := range ids {
		if fleet.IsBounds(id) && m.fleet.LeaveIfLowered(ctx) {
			m.joinFleet(ctx)
		}
		if m.tokens != nil && id == ringRecord(m.cfg.Tokens.Issuer) {
			m.ringChanged(ctx)
		}
	}
	return nil
}

// settleMarks reads the marks that the feed has named, until ctx ends. A mark is dated by
// the clock of its writer, so settleMarks also compares that clock with this one.
func (m *Manager) settleMarks(ctx context.Context) {
	m.marks.KeepSettled(ctx, func(s marks.Settled) {
		if m.engine.Live(s.NamedAt) && s.Mark.Before == clock.Forever { // such a mark is written only once: just before
			m.skew.NoteWithin(m.cfg.MaxStaleness, s.Created, s.NamedAt)
		}
		m.skew.Note(s.Created, m.clock.Now())
	})
}

// fillMarks reads all marks whenever the feed begins, until ctx ends.
func (m *Manager) fillMarks(ctx context.Context, lister backend.Lister) {
	m.marks.KeepFilled(ctx, lister, marks.Progress{
		Moved:  func(n int) { m.report(Event{Type: EventCatchingUp, Count: n}) },
		Filled: func(n int) { m.report(Event{Type: EventCaughtUp, Count: n}) },
		Tried: func(err error) {
			if m.problems.Set("revocations", errs.OnlyCorrupt(err)); err != nil {
				m.report(Event{Type: EventUpkeepFailed, Err: err})
			}
		},
	})
}

// recentChanges are the revocations, and what was disabled and enabled, that this Manager
// has lately made. They are kept for a while, and are repeated when the feed reports that its
// history was lost: a server that took over from another one may lack writes which that one
// had acknowledged. Changes of tokens and sessions have a list of their own, so that token
// holders, who may revoke these themselves, cannot push out other changes.
type recentChanges struct {
	others, tokens recent.List[record.ID, recentChange]
}

// recentChange is one change: of the record of a key, or of a session or a token that was
// revoked (id), or of a mark (place).
type recentChange struct {
	id      ID
	status  keystate.Status // that was given to a key; Revoked for a session or a token
	version uint64          // of the record of a key that was disabled
	reason  RevokeReason
	place   marks.Place
	mark    marks.Mark
	token   bool // of a token, or of a session
}

// Join merges two changes of one record into one that ends what either of them ends.
func (c recentChange) Join(older recentChange) recentChange {
	c.mark = c.mark.Join(older.mark)
	if older.status == keystate.Revoked {
		c.status, c.reason = older.status, older.reason
	}
	return c
}

// errNotAllAgain reports that reapply knows only some of the revocations to repeat, so
// that an operator has to repeat the others.
var errNotAllAgain = fmt.Errorf("fob: history was lost, and more than %d revocations were made in the last %v: apply an export of them", recent.Max, recent.For)

// noteRecent remembers a change that was made, or may have been.
func (m *Manager) noteRecent(made recentChange, err error) {
	if err == nil || errors.Is(err, ErrIndeterminate) {
		list, at := &m.recent.others, made.place.ID
		if made.token {
			list = &m.recent.tokens
		}
		if !made.id.IsZero() {
			at = record.ID(made.id)
		}
		list.Note(m.clock.Now(), at, made)
	}
}

// reapply repeats the changes that were lately made here. If the store cannot be
// reached, that is its error, and the feed begins again. Any other error is reported, and
// does not keep the feed from being followed.
func (m *Manager) reapply(ctx context.Context) error {
	now := m.clock.Now()
	others, allOthers := m.recent.others.All(now)
	tokens, allTokens := m.recent.tokens.All(now)
	if !allOthers || !allTokens {
		m.report(Event{Type: EventUpkeepFailed, Err: errNotAllAgain})
	}
	for _, made := range slices.Concat(others, tokens) {
		err := guard.Run("", func() error { return m.reapplyOne(ctx, made) })
		switch {
		case err == nil, errors.Is(err, ErrNotFound):
		case errs.IsOutage(err):
			return err
		default:
			m.report(Event{Type: EventUpkeepFailed, ID: made.id, Err: err})
		}
	}
	return nil
}

func (m *Manager) reapplyOne(ctx context.Context, made recentChange) error {
	switch {
	case made.id.IsZero():
		event := Event{Type: EventRevoked, Target: targetOf(made.place), Reason: RevokeReason(made.mark.Reason)}
		at := place{Place: made.place, token: made.token}
		at.subject, _ = event.Target.(Subject)
		_, _, err := m.mark(ctx, &event, at, func(old marks.Mark, _ int64) marks.Mark {
			switch {
			case !old.Revokes(&made.mark):
				event.Type = EventRevoked
			case made.mark.Disabled():
				event.Type = EventDisabled
			default:
				event.Type = EventEnabled
			}
			return made.mark
		})
		return err
	case made.status == keystate.Active:
		return nil
	case made.status == keystate.Revoked:
		_, _, err := m.revokeID(ctx, made.id, made.reason)
		return err
	}
	k, err := m.keystore.Read(ctx, record.ID(made.id))
	if err != nil || k.Version >= made.version {
		return err // nothing was lost, or somebody has changed the key since
	}
	event := Event{Type: EventDisabled, ID: made.id, Target: made.id, Reason: made.reason}
	if err := m.switchKey(ctx, event, true); !errors.Is(err, ErrRevoked) {
		return err
	}
	return nil
}

// clockStride is the most by which a clock advances from one reading to the next. A
// larger step means that the clock was set, and nobody knows how old a cached answer is.
const clockStride = 2 * fleet.MaxStaleness

// patience is how old an answer of this Manager may be while its store fails.
func (c *Config) patience() time.Duration { return c.MaxStaleness + c.StaleIfError }

// newFleet makes the part that tells other processes on the store of this one's settings.
func (m *Manager) newFleet() *fleet.Fleet {
	c := fleet.Config{
		Records: m.records, Clock: &m.clock, Patience: m.cfg.patience(), UsageInterval: m.cfg.UsageInterval,
		Joined: m.engine.Joined,
	}
	if m.cfg.Tokens != nil {
		c.MaxTTL = m.cfg.Tokens.MaxTTL
	}
	return fleet.New(c)
}

// joinFleet joins the fleet unless that is done. Until then no cached answer is used for
// longer than every process expects by default.
func (m *Manager) joinFleet(ctx context.Context) {
	if m.fleet.Joined() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	err := m.fleet.Join(ctx)
	if err != nil {
		err = fmt.Errorf("fob: join the fleet: %w", err)
	}
	switch {
	case err == nil:
		m.problem("fleet", nil)
	case m.life.Context().Err() != nil:
	case errors.Is(err, ErrCorrupt):
		m.problem("fleet", err) // until LowerFleetStaleness mends it
	default:
		m.report(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// FleetStaleness returns how old an answer may be in any process on this store: the
// largest sum of MaxStaleness and StaleIfError that any of them was configured with since
// the last [Manager.LowerFleetStaleness], and at least 2 s.
func (m *Manager) FleetStaleness(ctx context.Context) (time.Duration, error) {
	if m.life.Closed() {
		return 0, ErrClosed
	}
	have, err := m.fleet.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("fob: fleet staleness: %w", err)
	}
	return have.Staleness, nil
}

// LowerFleetStaleness lowers FleetStaleness after processes with larger settings have
// raised it. Call it once none of them runs any more; the Manager cannot know that. If
// one still runs, it raises the bound again when the feed reports the change. Until then,
// or while it is cut off, receipts and [Receipt.Wait] promise too much. A
// bound below this Manager's own settings is ErrInvalid; below 2 s it means 2 s. A
// corrupt record of the bound is replaced.
func (m *Manager) LowerFleetStaleness(ctx context.Context, bound time.Duration) error {
	if m.life.Closed() {
		return ErrClosed
	}
	if bound = max(bound, fleet.DefaultStaleness); bound < m.cfg.patience() || bound > fleet.MaxStaleness {
		return fmt.Errorf("%w: fleet staleness %v, want %v to %v", ErrInvalid, bound, m.cfg.patience(), fleet.MaxStaleness)
	}
	if err := m.fleet.Lower(ctx, bound); err != nil {
		return fmt.Errorf("fob: lower fleet staleness: %w", err)
	}
	return nil
}
