package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/feed"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
)

// unreadable notes a mark whose record cannot be read. It is one problem among those of
// Health, and ends with the next record that can.
func (m *Manager) unreadable(id record.ID, err error) marks.Mark {
	bad := marks.Mark{Bad: fmt.Errorf("record %x: %w", id, err)}
	m.recordProblem(id, bad.Bad)
	return bad
}

// readMark reads one mark from the store; the zero mark if there is none.
func (m *Manager) readMark(ctx context.Context, id record.ID) (marks.Mark, error) {
	found, _, err := m.marks.Read(ctx, id)
	return found, err
}

// followFeed keeps what the Manager remembers up with the store until ctx ends.
// While it cannot, that grows old, and is read again from the store when it is
// asked for.
func (m *Manager) followFeed(ctx context.Context, watcher backend.Watcher, lister backend.Lister) {
	m.joinFleet(ctx)
	f := feed.Follower{
		Watcher: watcher,
		Begin:   func(ctx context.Context) error { return m.startFeed(ctx, lister) },
		Apply:   m.applyChanges,
		Proved:  m.proved,
		Lost: func(err error) {
			m.health.Lost(err, m.now())
			m.report(Event{Type: EventFeedLost, Err: err})
		},
	}
	f.Run(ctx)
}

// proved notes that every change before an instant of the machine's clock is known here.
func (m *Manager) proved(at time.Time) {
	m.engine.Proven(m.clock.MonoOf(at))
	if m.health.Proved(m.clock.Now()) {
		m.report(Event{Type: EventFeedResumed})
	}
}

// startFeed reads all marks anew, and forgets what was found out before: from now
// on the feed misses nothing, of what was before it may have.
func (m *Manager) startFeed(ctx context.Context, lister backend.Lister) error {
	m.engine.FeedBegins()
	if again := m.health.Begun(); again {
		// History was lost, and writes with it perhaps: after a failover, say.
		m.fleet.Leave()
		m.joinFleet(ctx)
		if err := m.reapply(ctx); err != nil {
			return err
		}
	}
	if err := m.loadMarks(ctx, lister); err != nil {
		return err
	}
	m.ringChanged(ctx) // perhaps
	m.engine.Clear()
	return nil
}

// loadMarks reads all marks anew.
func (m *Manager) loadMarks(ctx context.Context, lister backend.Lister) error {
	all := make(map[record.ID]marks.Mark)
	for _, kind := range []backend.Kind{record.Mark, record.Subject} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return err
			}
			for i := range page.Records {
				rec := &page.Records[i]
				if all[rec.ID], err = marks.Decode(rec); err != nil {
					all[rec.ID] = m.unreadable(rec.ID, err)
				}
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
	}
	m.marks.Replace(all, func(id record.ID) { m.recordProblem(id, nil) })
	return nil
}

func (m *Manager) applyChanges(ctx context.Context, changes []backend.Change) error {
	if len(changes) == 0 {
		return nil
	}
	ids := make([]backend.ID, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
		if marks.Is(c.ID) {
			before := m.engine.Now()
			was := m.marks.Get(c.ID)
			to, created, err := m.marks.Read(ctx, c.ID)
			if err != nil && !errors.Is(err, ErrCorrupt) {
				return err
			}
			if m.engine.Live(before) && to.Before == clock.Forever { // written once, so it was just now
				m.skew.NoteWithin(m.cfg.MaxStaleness, created, before)
			}
			m.skew.Note(created, m.clock.Now())
			if err == nil && was.Bad != nil {
				m.recordProblem(c.ID, nil)
			}
			switch {
			case err != nil:
				m.marks.Spoil(c.ID, m.unreadable(c.ID, err))
			case to == (marks.Mark{}):
				m.marks.Drop(c.ID, was) // purged: what it ended has expired
			default:
				m.marks.Raise(c.ID, to)
			}
		}
		if fleet.IsBounds(c.ID) && m.fleet.LeaveIfLowered(ctx) {
			m.joinFleet(ctx)
		}
		if m.tokens != nil && c.ID == ringRecord(m.cfg.Tokens.Issuer) {
			m.ringChanged(ctx)
		}
	}
	m.forget(ids...) // after the marks: an answer made meanwhile is from the old ones
	return nil
}
