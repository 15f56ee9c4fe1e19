package fob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// RevokeReason says why, for the record and the audit trail: up to 256 bytes of text. It
// never makes a revocation fail: longer text is cut, and control characters are dropped.
type RevokeReason string

func (r RevokeReason) clean() RevokeReason {
	text := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(string(r), ""))
	for len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "")
	}
	return RevokeReason(text)
}

// Receipt says from when a revocation holds.
type Receipt struct {
	// At is when the revocation returned here: no Verify of this Manager that starts later
	// accepts what was revoked.
	At time.Time
	// EverywhereBy is when the same holds for every other process on the store, whatever
	// happens to its connection: [Manager.FleetStaleness] after At. If that could not be
	// read, it is the most that any Config allows, two days. It is an instant of this
	// machine's clock; the clocks of machines are not compared. Wait waits for it.
	EverywhereBy time.Time
	// Already reports that it had been revoked before; the first revocation's
	// time and reason stay. It is never set for a subject, an account or AllTokens, of which
	// each revocation ends what there is at its time.
	Already bool
	// Unknown reports that nothing was known of the subject or the account: the store has no
	// key and no session of it, and nothing had been said about it before. It may exist in
	// tokens all the same, which are revoked; or its name may be mistyped.
	Unknown bool

	m *Manager
}

// receipt is made after the change, because only then is it known which processes could
// hold an older answer (see package internal/fleet).
func (m *Manager) receipt(ctx context.Context) Receipt {
	now := m.now().UTC()
	// The revocation is done, so its receipt must not wait for a store that hangs.
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	have, err := m.fleet.Bounds(ctx)
	if err != nil {
		have.Staleness = fleet.MaxStaleness
	}
	return Receipt{At: now, EverywhereBy: now.Add(have.Staleness), m: m}
}

// Wait returns when no process on the store accepts any more what was revoked, whatever
// happens to their connections: at EverywhereBy, usually 2 s after the revocation. If ctx
// ends before that, it is revoked all the same, and the error is that of ctx. If
// [Manager.FleetStaleness] could not be read for the receipt, it is read now. A Receipt that
// is not from a Manager is ErrInvalid, and a Manager that was closed ErrClosed.
func (r Receipt) Wait(ctx context.Context) error {
	if r.m == nil {
		return fmt.Errorf("fob: wait: %w: not a receipt", ErrInvalid)
	}
	m := r.m
	if m.life.Closed() {
		return ErrClosed
	}
	var backoff retry.Backoff
	for r.EverywhereBy.Sub(r.At) >= fleet.MaxStaleness {
		bound, err := m.FleetStaleness(ctx)
		if err == nil {
			r.EverywhereBy = r.At.Add(bound)
			break
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, ErrCorrupt) {
			return err
		}
		if err := m.sleep(ctx, backoff.Next()); err != nil {
			return err
		}
	}
	return m.sleep(ctx, r.EverywhereBy.Sub(m.now()))
}

// sleep waits for d, or until ctx ends or the Manager is closed.
func (m *Manager) sleep(ctx context.Context, d time.Duration) error {
	err := m.life.Sleep(ctx, d)
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("fob: wait: %w", err)
	}
	return err
}

// Revoke ends a target for good: the credential or the session with an [ID], every
// credential that a [Subject] or an [Account] has now, or every token so far ([AllTokens]).
// It is one write, however many credentials hang below (two for a session). What is issued
// later is not affected, so a subject or an account can be let in again. When Revoke has
// returned nil, the revocation is durable and no Verify of this Manager that starts later
// accepts what was revoked; the receipt says by when that holds in other processes.
// Revoking again is no error. An ID that names nothing is ErrNotFound; a subject or an
// account of which nothing is known is no error, see Receipt.Unknown. No target, or one that
// makes no sense, is ErrInvalid.
//
// ErrIndeterminate means that the store could not say whether it was done, or that only
// a part of it was done (of a session, say): call Revoke again until it returns nil.
func (m *Manager) Revoke(ctx context.Context, target Target, reason RevokeReason) (Receipt, error) {
	already, unknown, err := m.revoke(ctx, target, reason.clean())
	if err != nil {
		return Receipt{}, fmt.Errorf("fob: revoke: %w", err)
	}
	receipt := m.receipt(ctx)
	receipt.Already, receipt.Unknown = already, unknown
	return receipt, nil
}

func (m *Manager) revoke(ctx context.Context, target Target, reason RevokeReason) (already, unknown bool, err error) {
	if id, ok := target.(ID); ok {
		already, token, err := m.revokeID(ctx, id, reason)
		m.noteRecent(recentChange{id: id, status: keystate.Revoked, reason: reason, token: token}, err)
		return already, false, err
	}
	at, err := m.placeOf(target)
	if err != nil {
		return false, false, err
	}
	event := Event{Type: EventRevoked, Target: target, Reason: reason}
	first, _, err := m.mark(ctx, &event, at, func(old marks.Mark, now int64) marks.Mark { return at.revoked(old, now, string(reason)) })
	return false, first && m.knowsNothingOf(ctx, target), err
}

// mark changes the mark of a target, and reports it. first says that nothing was said about
// the target before.
func (m *Manager) mark(ctx context.Context, event *Event, at place, change func(old marks.Mark, now int64) marks.Mark) (first, changed bool, err error) {
	made, changed, err := m.marks.Change(ctx, at.Place, func(old marks.Mark, now int64) marks.Mark {
		first = old == marks.Mark{}
		return change(old, now)
	})
	event.Subject, event.Epoch = at.subject, made.Epoch
	if changed || err != nil {
		m.observeOutcome(ctx, *event, err)
		if made != (marks.Mark{}) { // else nothing was written yet
			m.noteRecent(recentChange{place: at.Place, mark: made, token: at.token}, err)
		}
	}
	return first, changed, err
}

// revokeID revokes a key, a session or a token, and reports it. token says that the ID is
// not that of a key.
func (m *Manager) revokeID(ctx context.Context, id ID, reason RevokeReason) (already, token bool, err error) {
	event := Event{Type: EventRevoked, ID: id, Target: id, Reason: reason}
	k, err := m.keystore.Edit(backend.Urgent(ctx), record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		event.Subject, event.Before = subjectOf(k.Owner), m.keyOf(k, 0)
		if k.Status == keystate.Revoked {
			already = !unsure // a revocation found after an unknown outcome is ours
			return false, nil
		}
		k.Status, k.Reason, k.RevokedAt = keystate.Revoked, string(reason), clock.Millis(m.now())
		return true, nil
	})
	switch {
	case err == nil:
		event.After = m.keyOf(k, 0)
	case errors.Is(err, ErrNotFound) && m.tokens != nil:
		token = true
		already, event.Subject, err = m.revokeToken(ctx, id, reason)
	}
	if !already || err != nil {
		m.observeOutcome(ctx, event, err)
	}
	return already, token, err
}

// Disable refuses a target until [Manager.Enable]: a key, a session or a token, every
// credential of a [Subject] or an [Account] (also those that are issued meanwhile), or the
// tokens issued so far ([AllTokens]; the claim iat decides). It is one write, however many
// credentials hang below. When it has returned nil, the same holds as for [Manager.Revoke].
// What was disabled by itself before stays so when the target is enabled again. A revoked
// credential is ErrRevoked; a target that is disabled already is no error.
func (m *Manager) Disable(ctx context.Context, target Target, reason RevokeReason) error {
	return m.switchTarget(ctx, target, true, reason.clean())
}

// Enable accepts a disabled target again, with everything below it that was not disabled
// or revoked by itself. A revoked credential is ErrRevoked, because that is for good. A
// target that is enabled already is no error.
func (m *Manager) Enable(ctx context.Context, target Target) error {
	return m.switchTarget(ctx, target, false, "")
}

func (m *Manager) switchTarget(ctx context.Context, target Target, disabled bool, reason RevokeReason) (err error) {
	event := Event{Type: EventEnabled, Target: target, Reason: reason}
	if disabled {
		event.Type = EventDisabled
	}
	id, single := target.(ID)
	if single {
		event.ID = id
		err = m.switchKey(ctx, event, disabled)
	}
	if !single || errors.Is(err, ErrNotFound) && m.tokens != nil {
		err = m.switchMark(ctx, event, disabled)
	}
	if err != nil {
		return fmt.Errorf("fob: %s: %w", event.Type, err)
	}
	return nil
}

// switchMark disables or enables a target that has a mark.
func (m *Manager) switchMark(ctx context.Context, event Event, disabled bool) (err error) {
	var at place
	if id, single := event.Target.(ID); single {
		at, err = m.placeOfToken(ctx, id)
	} else {
		at, err = m.placeOf(event.Target)
	}
	if err != nil {
		return err
	}
	revoked := false
	_, _, err = m.mark(ctx, &event, at, func(old marks.Mark, now int64) marks.Mark {
		if revoked = old.Before == clock.Forever; revoked {
			return old
		}
		return old.Switched(disabled, at.held, now, string(event.Reason))
	})
	if revoked && err == nil {
		return ErrRevoked
	}
	return err
}

// switchKey disables or enables a key.
func (m *Manager) switchKey(ctx context.Context, event Event, disabled bool) error {
	to := keystate.Active
	if disabled {
		ctx, to = backend.Urgent(ctx), keystate.Disabled
	}
	changed := false
	k, err := m.keystore.Edit(ctx, record.ID(event.ID), func(k *keystate.State, unsure bool) (bool, error) {
		event.Subject, event.Before = subjectOf(k.Owner), m.keyOf(k, 0)
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		differs := k.Status != to
		changed = differs || unsure // a change found after an unknown outcome is ours
		k.Status = to
		return differs, nil
	})
	if err == nil {
		event.After = m.keyOf(k, 0)
	}
	if changed || err != nil && !errors.Is(err, ErrNotFound) {
		m.observeOutcome(ctx, event, err)
		made := recentChange{id: event.ID, status: to, reason: event.Reason}
		if k != nil {
			made.version = k.Version
		}
		m.noteRecent(made, err)
	}
	return err
}

// notRevoked fails with ErrRevoked if a key was revoked, or all of its subject or account.
func (m *Manager) notRevoked(ctx context.Context, k *keystate.State) error {
	if k.Status == keystate.Revoked {
		return ErrRevoked
	}
	h, err := m.marks.ReadHolders(ctx, k.SubjectRef, k.AccountRef)
	if err != nil {
		return errs.OfStore("read subject", err)
	}
	if err := h.Refused(k.Epoch, k.AccountEpoch); errors.Is(err, ErrRevoked) {
		return err
	}
	return nil
}
