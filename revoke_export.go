package fob

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
)

// Revocation is one line of an export. It says that one credential (ID) was revoked, or a
// whole subject (Subject, SubjectKind, Epoch), or that one key was disabled. It grants
// nothing and holds no secret.
type Revocation struct {
	ID          ID          `json:"id,omitzero"`
	Subject     string      `json:"subject,omitempty"`
	SubjectKind SubjectKind `json:"subject_kind,omitempty"`
	Epoch       uint64      `json:"epoch,omitempty"` // credentials with a lower epoch are revoked
	// Disabled: refused until Enable; otherwise refused for good.
	Disabled bool         `json:"disabled,omitempty"`
	At       time.Time    `json:"at"`
	Reason   RevokeReason `json:"reason,omitempty"`
}

// reasonRotated is the reason in the export of a key whose rotation is over.
const reasonRotated RevokeReason = "rotated out"

// maxEpoch is the largest epoch that is applied. An epoch is at least the Unix time of
// its revocation, in milliseconds.
const maxEpoch = clock.MaxMillis

// maxExportErrors bounds how many unreadable records an export names.
const maxExportErrors = 16

// ExportRevocations writes every revocation made at since or later, one JSON object
// (Revocation) on each line, and returns how many. The zero time exports all that the
// store still knows. A rotated key whose overlap ended at since or later is exported as
// revoked; a key that is disabled now always is, because nothing tells since when.
//
// A restored backup makes credentials valid again that were revoked after it was taken.
// So apply what was exported since to the restored store with [Manager.ApplyRevocations],
// before the store is used. Export often, to another place than the store's, or write the
// same lines as they happen with an [Observer] (EventRevoked, EventSubjectRevoked,
// EventDisabled; the end of a rotation is no event). The threat model lists what a backup
// makes valid again that no export ends.
//
// A record that cannot be read does not keep the others from being exported: it is named
// in the error (ErrCorrupt), and the lines that were written are good.
func (m *Manager) ExportRevocations(ctx context.Context, w io.Writer, since time.Time) (int, error) {
	if m.life.Closed() {
		return 0, ErrClosed
	}
	if err := limits.CheckTime("since", since); err != nil {
		return 0, fmt.Errorf("fob: export revocations: %w", err)
	}
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return 0, fmt.Errorf("fob: export revocations: the store keeps no lists: %w", errors.ErrUnsupported)
	}
	n, unreadable := 0, 0
	var problems []error
	now := clock.Millis(m.now())
	out := json.NewEncoder(w)
	for _, kind := range []backend.Kind{record.Subject, record.Key} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return n, errors.Join(append(problems, errs.OfStore("fob: export revocations", err))...)
			}
			for i := range page.Records {
				rec := &page.Records[i]
				m.saw(*rec)
				r, ok, err := revocationOf(rec, now)
				if err != nil {
					if unreadable++; unreadable <= maxExportErrors {
						problems = append(problems, fmt.Errorf("fob: export revocations: record %x: %w", rec.ID, err))
					}
					continue
				}
				// The times in the store are whole milliseconds.
				if !ok || r.At.UnixMilli() < since.UnixMilli() {
					continue
				}
				if err := out.Encode(r); err != nil {
					return n, errors.Join(append(problems, fmt.Errorf("fob: export revocations: %w", err))...)
				}
				n++
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	if more := unreadable - len(problems); more > 0 {
		problems = append(problems, fmt.Errorf("fob: export revocations: %d records more: %w", more, ErrCorrupt))
	}
	return n, errors.Join(problems...)
}

// revocationOf is the revocation that a record contains at an instant, if there is one.
func revocationOf(rec *backend.Record, now int64) (Revocation, bool, error) {
	if rec.Kind == record.Subject {
		found, err := marks.DecodeEpoch(rec)
		if err != nil {
			return Revocation{}, false, err
		}
		return Revocation{
			Subject:     rec.Owner[1:],
			SubjectKind: SubjectKind(rec.Owner[0] - '0'),
			Epoch:       found.Epoch,
			At:          clock.Instant(int64(min(found.Epoch, maxEpoch))), // its instant, or a little later
			Reason:      RevokeReason(found.Reason),
		}, true, nil
	}
	k, err := decodeKey(rec)
	switch {
	case err != nil:
		return Revocation{}, false, err
	case k.state.Status == keystate.Revoked:
		return Revocation{ID: ID(k.state.ID), At: clock.Instant(k.state.RevokedAt), Reason: RevokeReason(k.state.Reason)}, true, nil
	case k.state.RetireAt != 0 && k.state.RetireAt <= now:
		return Revocation{ID: ID(k.state.ID), At: clock.Instant(k.state.RetireAt), Reason: reasonRotated}, true, nil
	case k.state.Status == keystate.Disabled:
		return Revocation{ID: ID(k.state.ID), At: clock.Instant(now), Disabled: true}, true, nil
	}
	return Revocation{}, false, nil
}

// Applied is what ApplyRevocations did.
type Applied struct {
	Revoked int // credentials and subjects that were not revoked, or disabled, before
	Already int // those that were
	Unknown int // credentials that the store does not have
}

// maxRevocation bounds one line of an export, in bytes.
const maxRevocation = 64 << 10

// ApplyRevocations reads what [Manager.ExportRevocations] wrote and revokes it all here.
// It can be repeated, also after it was cut off: what is revoked stays so. Text that is
// no export is ErrInvalid, with the number of the line; the lines before it are applied.
func (m *Manager) ApplyRevocations(ctx context.Context, r io.Reader) (Applied, error) {
	var done Applied
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRevocation)
	n := 1
	for ; lines.Scan(); n++ {
		var rev Revocation
		if err := json.Unmarshal(lines.Bytes(), &rev); err != nil {
			return done, fmt.Errorf("fob: apply revocations: line %d: %w", n, ErrInvalid)
		}
		if err := m.applyRevocation(ctx, rev, &done); err != nil {
			return done, fmt.Errorf("fob: apply revocations: line %d: %w", n, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return done, fmt.Errorf("fob: apply revocations: line %d: %w: longer than %d bytes", n, ErrInvalid, maxRevocation)
	case err != nil:
		return done, fmt.Errorf("fob: apply revocations: %w", err)
	}
	return done, nil
}

func (m *Manager) applyRevocation(ctx context.Context, rev Revocation, done *Applied) error {
	if !rev.ID.IsZero() == (rev.Subject != "") {
		return fmt.Errorf("%w: want a credential or a subject", ErrInvalid)
	}
	if rev.Disabled {
		if rev.ID.IsZero() {
			return fmt.Errorf("%w: only keys are disabled", ErrInvalid)
		}
		return m.applyDisabled(ctx, rev.ID, done)
	}
	if !rev.ID.IsZero() {
		receipt, err := m.Revoke(ctx, rev.ID, rev.Reason)
		switch {
		case errors.Is(err, ErrNotFound):
			done.Unknown++
			return nil
		case err != nil:
			return err
		case receipt.Already:
			done.Already++
		default:
			done.Revoked++
		}
		return nil
	}
	if m.life.Closed() {
		return ErrClosed
	}
	if err := checkSubject(rev.Subject, rev.SubjectKind); err != nil {
		return err
	}
	if rev.Epoch == 0 || rev.Epoch > maxEpoch {
		return fmt.Errorf("%w: epoch %d", ErrInvalid, rev.Epoch)
	}
	already, err := m.applyEpoch(ctx, rev)
	m.noteRevoked(recentRevocation{rev: rev}, err)
	switch {
	case err != nil:
		return err
	case already:
		done.Already++
	default:
		done.Revoked++
	}
	return nil
}

// applyEpoch revokes a subject up to the epoch of rev, unless it already is.
func (m *Manager) applyEpoch(ctx context.Context, rev Revocation) (already bool, err error) {
	ref, reason := subjectRecord(rev.SubjectKind, rev.Subject), rev.Reason.clean()
	epoch, err := m.marks.ReadEpoch(ctx, ref)
	if err != nil {
		return false, errs.OfStore("read", err)
	}
	if epoch >= rev.Epoch {
		m.forget(ref) // the feed may not have reported it yet
		return true, nil
	}
	epoch, err = m.raiseEpoch(ctx, rev.SubjectKind, rev.Subject, reason, rev.Epoch)
	m.observeOutcome(Event{Type: EventSubjectRevoked, Subject: rev.Subject, SubjectKind: rev.SubjectKind, Epoch: epoch, Reason: reason}, err)
	return false, err
}

func (m *Manager) applyDisabled(ctx context.Context, id ID, done *Applied) error {
	k, err := m.keystore.Read(ctx, record.ID(id))
	switch {
	case errors.Is(err, ErrNotFound):
		done.Unknown++
		return nil
	case err != nil:
		return err
	}
	err = m.Disable(ctx, id)
	switch {
	case errors.Is(err, ErrRevoked):
		done.Already++ // revoked, which is more than disabled
		return nil
	case err != nil:
		return err
	case k.Status != keystate.Active:
		done.Already++
	default:
		done.Revoked++
	}
	return nil
}
