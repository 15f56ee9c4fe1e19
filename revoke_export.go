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

// Revocation is one line of an export. It says that one credential (ID), a whole subject or
// a whole account was revoked, the latter two with everything of a lower Epoch; or, if
// Disabled is set, that it was disabled. It grants nothing and holds no secret.
type Revocation struct {
	ID      ID      `json:"id,omitzero"`
	Subject Subject `json:"subject,omitzero"`
	Account Account `json:"account,omitempty"`
	Epoch   uint64  `json:"epoch,omitempty"` // credentials with a lower epoch are revoked
	// Disabled: refused until Enable; otherwise refused for good.
	Disabled bool         `json:"disabled,omitempty"`
	At       time.Time    `json:"at"`
	Reason   RevokeReason `json:"reason,omitempty"`
}

// target is what the line is about, or an error if it is about nothing, or several things.
func (r *Revocation) target() (t Target, err error) {
	given := 0
	for _, one := range []struct {
		is  bool
		the Target
	}{{!r.ID.IsZero(), r.ID}, {r.Subject != Subject{}, r.Subject}, {r.Account != "", r.Account}} {
		if one.is {
			given, t = given+1, one.the
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("%w: want a credential, a subject or an account", ErrInvalid)
	}
	return t, nil
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
// revoked; whatever is disabled now always is, because nothing tells for sure since when.
//
// A restored backup makes credentials valid again that were revoked after it was taken.
// So apply what was exported since to the restored store with [Manager.ApplyRevocations],
// before the store is used. Export often, to another place than the store's, or write the
// same lines as they happen with an [Observer] (EventRevoked, EventDisabled;
// the end of a rotation is no event). The threat model lists what a backup
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
	for _, kind := range []backend.Kind{record.Account, record.Subject, record.Key} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return n, errors.Join(append(problems, errs.OfStore("fob: export revocations", err))...)
			}
			for i := range page.Records {
				rec := &page.Records[i]
				m.saw(*rec)
				lines, err := m.revocationsOf(rec, now)
				if err != nil {
					if unreadable++; unreadable <= maxExportErrors {
						problems = append(problems, fmt.Errorf("fob: export revocations: record %x: %w", rec.ID, err))
					}
					continue
				}
				for _, r := range lines {
					// The times in the store are whole milliseconds.
					if r.At.UnixMilli() < since.UnixMilli() {
						continue
					}
					if err := out.Encode(r); err != nil {
						return n, errors.Join(append(problems, fmt.Errorf("fob: export revocations: %w", err))...)
					}
					n++
				}
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

// revocationsOf is what a record says at an instant of what was revoked or disabled.
func (m *Manager) revocationsOf(rec *backend.Record, now int64) (lines []Revocation, err error) {
	if rec.Kind != record.Key {
		found, err := marks.Decode(rec)
		if err != nil {
			return nil, err
		}
		line := Revocation{Reason: RevokeReason(found.Reason)}
		if rec.Kind == record.Account {
			line.Account = Account(rec.Owner)
		} else {
			line.Subject = subjectOf(rec.Owner)
		}
		if found.Epoch != 0 {
			revoked := line
			revoked.Epoch, revoked.At = found.Epoch, clock.Instant(int64(min(found.Epoch, maxEpoch))) // its instant, or a little later
			lines = append(lines, revoked)
		}
		if found.Disabled() {
			line.Disabled, line.At = true, clock.Instant(now)
			lines = append(lines, line)
		}
		return lines, nil
	}
	k, err := m.decodeKey(rec)
	if err != nil {
		return nil, err
	}
	line := Revocation{ID: ID(k.state.ID)}
	switch {
	case k.state.Status == keystate.Revoked:
		line.At, line.Reason = clock.Instant(k.state.RevokedAt), RevokeReason(k.state.Reason)
	case k.state.RetireAt != 0 && k.state.RetireAt <= now:
		line.At, line.Reason = clock.Instant(k.state.RetireAt), reasonRotated
	case k.state.Status == keystate.Disabled:
		line.At, line.Disabled = clock.Instant(now), true
	default:
		return nil, nil
	}
	return []Revocation{line}, nil
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
	target, err := rev.target()
	if err != nil {
		return err
	}
	var changed bool
	_, single := target.(ID)
	switch {
	case (single || rev.Disabled) && rev.Epoch != 0:
		return fmt.Errorf("%w: an epoch of what has none", ErrInvalid)
	case rev.Disabled:
		changed, err = m.applyDisabled(ctx, target, rev.Reason)
	case single:
		var receipt Receipt
		receipt, err = m.Revoke(ctx, target, rev.Reason)
		changed = !receipt.Already
	default:
		changed, err = m.applyEpoch(ctx, target, rev)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		done.Unknown++
	case errors.Is(err, ErrRevoked):
		done.Already++ // which is more than disabled
	case err != nil:
		return err
	case changed:
		done.Revoked++
	default:
		done.Already++
	}
	return nil
}

// applyEpoch revokes a subject or an account up to the epoch of rev, unless it already is.
func (m *Manager) applyEpoch(ctx context.Context, target Target, rev Revocation) (changed bool, err error) {
	at, err := m.placeOf(target)
	if err != nil {
		return false, err
	}
	if rev.Epoch == 0 || rev.Epoch > maxEpoch {
		return false, fmt.Errorf("%w: epoch %d", ErrInvalid, rev.Epoch)
	}
	reason := rev.Reason.clean()
	event := Event{Type: EventRevoked, Target: target, Reason: reason}
	_, changed, err = m.mark(ctx, &event, at, func(old marks.Mark, _ int64) marks.Mark {
		if old.Epoch < rev.Epoch {
			old.Epoch, old.Reason = rev.Epoch, string(reason)
		}
		return old
	})
	return changed, err
}

// applyDisabled disables a target, unless it already is.
func (m *Manager) applyDisabled(ctx context.Context, target Target, reason RevokeReason) (changed bool, err error) {
	if id, ok := target.(ID); ok {
		k, err := m.keystore.Read(ctx, record.ID(id))
		if err != nil {
			return false, err
		}
		return k.Status == keystate.Active, m.Disable(ctx, target, reason)
	}
	at, err := m.placeOf(target)
	if err != nil {
		return false, err
	}
	old, _, err := m.marks.Read(ctx, at.Place.ID)
	if err != nil {
		return false, errs.OfStore("read", err)
	}
	return !old.Disabled(), m.Disable(ctx, target, reason)
}
