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
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// RevokeReason says why, for the record and the audit trail: up to 256 bytes of
// text. It never makes a revocation fail: what is longer is cut, control
// characters are dropped.
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
	// At is when it returned here: no Verify of this Manager that starts later
	// accepts what was revoked.
	At time.Time
	// EverywhereBy is when the same holds for every other process on the store,
	// whatever happens to its connection: FleetStaleness after At. Where that could not
	// be read, it is the most that any Config allows, two days. The clocks of machines
	// are not compared: it is this one's.
	EverywhereBy time.Time
	// Already reports that it had been revoked before; the first revocation's
	// time and reason stay.
	Already bool
}

// receipt is made after the change: only then is it known who could hold an older
// answer (see package internal/fleet).
func (m *Manager) receipt(ctx context.Context, already bool) Receipt {
	now := m.now().UTC()
	// What is revoked is so already: to say that must not wait for a store that hangs.
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
// ErrIndeterminate means that the store could not say whether it was done: call
// Revoke again until it returns nil.
func (m *Manager) Revoke(ctx context.Context, id ID, reason RevokeReason) (Receipt, error) {
	reason = reason.clean()
	already, token, err := m.revokeID(ctx, id, reason)
	m.noteRevoked(recentRevocation{rev: Revocation{ID: id, Reason: reason}, token: token}, err)
	if err != nil {
		return Receipt{}, fmt.Errorf("fob: revoke: %w", err)
	}
	return m.receipt(ctx, already), nil
}

// revokeID ends a key, a family or a token, and reports it. token says that it is
// no key's.
func (m *Manager) revokeID(ctx context.Context, id ID, reason RevokeReason) (already, token bool, err error) {
	subject := ""
	_, err = m.editKey(backend.Urgent(ctx), id, func(k *Key, unsure bool) (bool, error) {
		subject = k.subject
		if k.status == StatusRevoked {
			already = !unsure // after an unknown outcome it is this call's own
			return false, nil
		}
		k.status, k.reason, k.revokedAt = StatusRevoked, reason, clock.Millis(m.now())
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

// RevokeSubject ends every credential that a subject has now, in one write
// however many there are. Credentials issued later are not affected, so a
// subject can be let in again. kinds says which subject of that name is meant;
// none means of either kind. When it has returned nil, the same holds as for
// Revoke. A subject that has no credentials is no error.
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

// The epoch of a subject is a number that only rises; a credential is stamped
// with it at issue and dies when it rises. It is at least the Unix time in
// milliseconds of the last revocation, so that it rises even over a store that
// was restored from a backup and has forgotten its last values.

// readEpoch returns a subject's epoch and its record; zeros if there is none.
func (m *Manager) readEpoch(ctx context.Context, ref record.ID) (epoch uint64, rec backend.Record, err error) {
	rec, err = m.store.Get(ctx, ref)
	if errors.Is(err, backend.ErrNotFound) {
		return 0, backend.Record{}, nil
	}
	if err != nil {
		return 0, backend.Record{}, err
	}
	found, err := marks.DecodeEpoch(&rec)
	return found.Epoch, rec, err
}

// raiseEpoch raises the epoch of a subject, to least if that is set and higher,
// else to a new value. It returns the one that it wrote, or may have written.
func (m *Manager) raiseEpoch(ctx context.Context, kind SubjectKind, subject string, reason RevokeReason, least uint64) (epoch uint64, err error) {
	ref := subjectRecord(kind, subject)
	err = retry.Do(ctx, func(bool) error {
		old, found, err := m.readEpoch(ctx, ref)
		if err != nil {
			return errs.OfStore("read", err)
		}
		if least > 0 && old >= least {
			m.forget(ref) // the feed may not have told of it yet
			epoch = old
			return nil
		}
		now := clock.Millis(m.now())
		rec := backend.Record{ID: ref, Kind: record.Subject, Owner: owner(kind, subject), Created: now}
		cond := backend.IfAbsent()
		if old > 0 {
			rec.Created, cond = found.Created, backend.IfVersion(found.Version)
		}
		if epoch = least; epoch == 0 {
			epoch = max(old+1, uint64(now))
		}
		w := record.NewBody()
		w.Text(record.FieldReason, string(reason))
		w.Number(record.FieldEpoch, epoch)
		w.Seal(&rec)
		if _, err = m.records.Replace(backend.Urgent(ctx), rec, cond); err != nil {
			return retry.Raced(err)
		}
		m.learn(ref, marks.Mark{Epoch: epoch, Reason: string(reason)})
		return nil
	})
	return epoch, err
}

// Disable refuses a credential until Enable. When it has returned nil, the same
// holds as for Revoke. A revoked credential is ErrRevoked; one that is disabled
// already is no error.
func (m *Manager) Disable(ctx context.Context, id ID) error {
	return m.setStatus(backend.Urgent(ctx), id, StatusDisabled, EventDisabled)
}

// Enable accepts a disabled credential again. A revoked one is ErrRevoked: that
// is for good. One that is enabled already is no error.
func (m *Manager) Enable(ctx context.Context, id ID) error {
	return m.setStatus(ctx, id, StatusActive, EventEnabled)
}

// notRevoked fails with ErrRevoked if a key was revoked, or all of its subject.
func (m *Manager) notRevoked(ctx context.Context, k *Key) error {
	if k.status == StatusRevoked {
		return ErrRevoked
	}
	epoch, _, err := m.readEpoch(ctx, k.subjectRef)
	if err != nil {
		return errs.OfStore("read subject", err)
	}
	if k.epoch < epoch {
		return ErrRevoked
	}
	return nil
}

func (m *Manager) setStatus(ctx context.Context, id ID, to Status, event EventType) error {
	changed, subject := false, ""
	_, err := m.editKey(ctx, id, func(k *Key, unsure bool) (bool, error) {
		subject = k.subject
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		differs := k.status != to
		changed = differs || unsure // after an unknown outcome it is this call's own
		k.status = to
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
