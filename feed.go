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
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/recent"
	"github.com/fobkit/fob/internal/record"
)

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
	if err := m.marks.Load(ctx, lister); err != nil {
		return err
	}
	m.ringChanged(ctx) // perhaps
	m.engine.Clear()
	return nil
}

// applyChanges takes in what the feed has told.
func (m *Manager) applyChanges(ctx context.Context, changes []backend.Change) error {
	if len(changes) == 0 {
		return nil
	}
	ids := make([]backend.ID, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
		if marks.Is(c.ID) {
			if err := m.applyMark(ctx, c.ID); err != nil {
				return err
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

// applyMark takes in a mark that has changed, and what its time says of the clock of whoever
// wrote it.
func (m *Manager) applyMark(ctx context.Context, id record.ID) error {
	before := m.engine.Now()
	to, created, err := m.marks.Changed(ctx, id)
	if err != nil {
		return err
	}
	if m.engine.Live(before) && to.Before == clock.Forever { // written once, so it was just now
		m.skew.NoteWithin(m.cfg.MaxStaleness, created, before)
	}
	m.skew.Note(created, m.clock.Now())
	return nil
}

// recentRevocations are what was lately revoked by this Manager. It is remembered for a
// while and revoked once more when the feed says that history was lost: a server that took
// over from another one may have forgotten writes which that one had acknowledged. Tokens
// and families, which their holders may revoke themselves, push out nothing else.
type recentRevocations struct {
	others, tokens recent.List[revocationTarget, recentRevocation]
}

// recentRevocation is one revocation: of an ID, of a subject, or of what an issuer has
// issued.
type recentRevocation struct {
	rev    Revocation
	issuer marks.Mark // what the issuer's mark was raised to
	token  bool       // of a token, or of a family
}

// revocationTarget is what a revocation is of, if perhaps of more or less of it.
type revocationTarget struct {
	id      ID
	subject string
	kind    SubjectKind
	issuer  bool
}

func (r *recentRevocation) target() revocationTarget {
	return revocationTarget{r.rev.ID, r.rev.Subject, r.rev.SubjectKind, r.issuer.Epoch != 0}
}

// Join returns the one of two revocations of one thing that ends the most.
func (r recentRevocation) Join(older recentRevocation) recentRevocation {
	r.issuer = r.issuer.Join(older.issuer)
	if older.rev.Epoch > r.rev.Epoch {
		r.rev = older.rev
	}
	return r
}

// reapplyIssuer raises the issuer's mark to what it was here, unless it is that high.
func (m *Manager) reapplyIssuer(ctx context.Context, to marks.Mark) error {
	old, err := m.readMark(ctx, m.issuerMark())
	if err != nil {
		return errs.OfStore("read", err)
	}
	if old.Covers(&to) {
		m.marks.Learn(m.issuerMark(), old)
		return nil
	}
	_, err = m.marks.RaiseIssuer(ctx, m.issuerMark(), to)
	m.observeOutcome(Event{Type: EventTokensRevoked, Reason: RevokeReason(to.Reason)}, err)
	return err
}

// errNotAllAgain is why an operator has to do the rest of it.
var errNotAllAgain = fmt.Errorf("fob: history was lost, and more than %d revocations were made in the last %v: apply an export of them", recent.Max, recent.For)

// noteRevoked remembers a revocation that was made, or may have been.
func (m *Manager) noteRevoked(made recentRevocation, err error) {
	if made.rev.Subject != "" && made.rev.Epoch == 0 || made.rev.Subject == "" && made.rev.ID.IsZero() && made.issuer.Epoch == 0 {
		return // nothing was written yet
	}
	if err == nil || errors.Is(err, ErrIndeterminate) {
		list := &m.recent.others
		if made.token {
			list = &m.recent.tokens
		}
		list.Note(m.clock.Now(), made.target(), made)
	}
}

// reapply revokes once more what was lately revoked here. What cannot be asked now is
// an error, and the feed begins again; what is wrong for another reason is reported,
// and does not keep the feed from being followed.
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
			m.report(Event{Type: EventUpkeepFailed, ID: made.rev.ID, Subject: made.rev.Subject, Err: err})
		}
	}
	return nil
}

func (m *Manager) reapplyOne(ctx context.Context, made recentRevocation) error {
	switch rev := made.rev; {
	case made.issuer.Epoch != 0:
		return m.reapplyIssuer(ctx, made.issuer)
	case rev.Subject != "":
		_, err := m.applyEpoch(ctx, rev)
		return err
	default:
		_, _, err := m.revokeID(ctx, rev.ID, rev.Reason)
		return err
	}
}
