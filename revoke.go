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
	// machine's clock; the clocks of machines are not compared.
	EverywhereBy time.Time
	// Already reports that it had been revoked before; the first revocation's
	// time and reason stay.
	Already bool
}

// receipt is made after the change, because only then is it known which processes could
// hold an older answer (see package internal/fleet).
func (m *Manager) receipt(ctx context.Context, already bool) Receipt {
	now := m.now().UTC()
	// The revocation is done, so its receipt must not wait for a store that hangs.
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	have, err := m.fleet.Bounds(ctx)
	if err != nil {
		have.Staleness = fleet.MaxStaleness
	}
	return Receipt{At: now, EverywhereBy: now.Add(have.Staleness), Already: already}
}

// Revoke ends a credential for good. When it has returned nil, the revocation
// is durable and no Verify of this Manager that starts later accepts the
// credential; the receipt says by when that holds in other processes.
// Revoking again is no error. An ID that names nothing is ErrNotFound.
//
// ErrIndeterminate means that the store could not say whether it was done, or that only
// a part of it was done (of a session, say): call Revoke again until it returns nil.
func (m *Manager) Revoke(ctx context.Context, id ID, reason RevokeReason) (Receipt, error) {
	reason = reason.clean()
	already, token, err := m.revokeID(ctx, id, reason)
	m.noteRevoked(recentRevocation{rev: Revocation{ID: id, Reason: reason}, token: token}, err)
	if err != nil {
		return Receipt{}, fmt.Errorf("fob: revoke: %w", err)
	}
	return m.receipt(ctx, already), nil
}

// revokeID revokes a key, a family or a token, and reports it. token says that the ID is
// not that of a key.
func (m *Manager) revokeID(ctx context.Context, id ID, reason RevokeReason) (already, token bool, err error) {
	subject := ""
	_, err = m.keystore.Edit(backend.Urgent(ctx), record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		subject = k.Subject()
		if k.Status == keystate.Revoked {
			already = !unsure // a revocation found after an unknown outcome is ours
			return false, nil
		}
		k.Status, k.Reason, k.RevokedAt = keystate.Revoked, string(reason), clock.Millis(m.now())
		return true, nil
	})
	if errors.Is(err, ErrNotFound) && m.tokens != nil {
		token = true
		already, err = m.revokeToken(ctx, id, reason)
	}
	if !already || err != nil {
		m.observeOutcome(Event{Type: EventRevoked, ID: id, Subject: subject, Reason: reason}, err)
	}
	return already, token, err
}

// RevokeEverywhere is [Manager.Revoke], but returns only when no process on this store
// accepts the credential any more, whatever happens to their connections: it waits until
// the receipt's EverywhereBy, usually 2 s. If ctx ends before that, the credential is
// revoked all the same and the receipt says so; the error is that of ctx.
func (m *Manager) RevokeEverywhere(ctx context.Context, id ID, reason RevokeReason) (Receipt, error) {
	receipt, err := m.Revoke(ctx, id, reason)
	if err != nil {
		return Receipt{}, err
	}
	return m.WaitEverywhere(ctx, receipt)
}

// WaitEverywhere waits until a revocation holds in every process, and returns its receipt
// with that instant. It is for receipts that this Manager has just given. If
// [Manager.FleetStaleness] could not be read for the receipt, it is read now.
func (m *Manager) WaitEverywhere(ctx context.Context, receipt Receipt) (Receipt, error) {
	if receipt.At.IsZero() {
		return receipt, fmt.Errorf("fob: wait everywhere: %w: not a receipt", ErrInvalid)
	}
	if m.life.Closed() {
		return receipt, ErrClosed
	}
	var backoff retry.Backoff
	for receipt.EverywhereBy.Sub(receipt.At) >= fleet.MaxStaleness {
		bound, err := m.FleetStaleness(ctx)
		if err == nil {
			receipt.EverywhereBy = receipt.At.Add(bound)
			break
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, ErrCorrupt) {
			return receipt, err
		}
		if err := m.sleep(ctx, backoff.Next()); err != nil {
			return receipt, err
		}
	}
	if err := m.sleep(ctx, receipt.EverywhereBy.Sub(m.now())); err != nil {
		return receipt, err
	}
	return receipt, nil
}

// sleep waits for d, or until ctx ends or the Manager is closed.
func (m *Manager) sleep(ctx context.Context, d time.Duration) error {
	err := m.life.Sleep(ctx, d)
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("fob: wait everywhere: %w", err)
	}
	return err
}

// RevokeSubject revokes every credential that a subject has now, in one write for each
// kind of subject, however many credentials there are. Credentials issued later are not
// affected, so a subject can be let in again. kinds says which kinds of subject of that
// name are meant; none means both. When it has returned nil, the same holds as for
// [Manager.Revoke]. A subject that has no credentials is no error.
func (m *Manager) RevokeSubject(ctx context.Context, subject string, reason RevokeReason, kinds ...SubjectKind) (Receipt, error) {
	if m.life.Closed() {
		return Receipt{}, ErrClosed
	}
	if len(kinds) == 0 {
		kinds = []SubjectKind{SubjectApplication, SubjectUser}
	}
	for _, kind := range kinds {
		if err := checkSubject(subject, kind); err != nil {
			return Receipt{}, err
		}
	}
	reason = reason.clean()
	for i, kind := range kinds {
		epoch, err := m.raiseEpoch(ctx, kind, subject, reason, 0)
		m.observeOutcome(Event{Type: EventSubjectRevoked, Subject: subject, SubjectKind: kind, Epoch: epoch, Reason: reason}, err)
		m.noteRevoked(recentRevocation{rev: Revocation{Subject: subject, SubjectKind: kind, Epoch: epoch, Reason: reason}}, err)
		if err != nil {
			return Receipt{}, fmt.Errorf("fob: revoke subject: %w", errs.Settle(i > 0, err)) // the one before is done
		}
	}
	return m.receipt(ctx, false), nil
}

// raiseEpoch raises the epoch of a subject: to least if that is set and higher, else to a
// new value. It returns the epoch that it wrote, or may have written.
func (m *Manager) raiseEpoch(ctx context.Context, kind SubjectKind, subject string, reason RevokeReason, least uint64) (epoch uint64, err error) {
	return m.marks.RaiseEpoch(ctx, subjectRecord(kind, subject), owner(kind, subject), string(reason), least)
}

// Disable refuses a credential until [Manager.Enable]. When it has returned nil, the same
// holds as for [Manager.Revoke]. A revoked credential is ErrRevoked; one that is disabled
// already is no error.
func (m *Manager) Disable(ctx context.Context, id ID) error {
	return m.setStatus(backend.Urgent(ctx), id, StatusDisabled, EventDisabled)
}

// Enable accepts a disabled credential again. A revoked one is ErrRevoked, because that
// is for good. One that is enabled already is no error.
func (m *Manager) Enable(ctx context.Context, id ID) error {
	return m.setStatus(ctx, id, StatusActive, EventEnabled)
}

// notRevoked fails with ErrRevoked if a key was revoked, or all of its subject.
func (m *Manager) notRevoked(ctx context.Context, k *keystate.State) error {
	if k.Status == keystate.Revoked {
		return ErrRevoked
	}
	epoch, err := m.marks.ReadEpoch(ctx, k.SubjectRef)
	if err != nil {
		return errs.OfStore("read subject", err)
	}
	if k.Epoch < epoch {
		return ErrRevoked
	}
	return nil
}

func (m *Manager) setStatus(ctx context.Context, id ID, to Status, event EventType) error {
	changed, subject := false, ""
	_, err := m.keystore.Edit(ctx, record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		subject = k.Subject()
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		differs := Status(k.Status) != to
		changed = differs || unsure // a change found after an unknown outcome is ours
		k.Status = keystate.Status(to)
		return differs, nil
	})
	if changed || err != nil {
		m.observeOutcome(Event{Type: event, ID: id, Subject: subject}, err)
	}
	if err != nil {
		return fmt.Errorf("fob: %s: %w", to, err)
	}
	return nil
}
