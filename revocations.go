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
)

// Revocation is one revocation as it is exported: of one credential (ID) or of
// a whole subject (Subject, SubjectKind, Epoch). It grants nothing and holds no
// secret.
type Revocation struct {
	ID          ID           `json:"id,omitzero"`
	Subject     string       `json:"subject,omitempty"`
	SubjectKind SubjectKind  `json:"subject_kind,omitempty"`
	Epoch       uint64       `json:"epoch,omitempty"` // credentials stamped lower are revoked
	At          time.Time    `json:"at"`
	Reason      RevokeReason `json:"reason,omitempty"`
}

// ExportRevocations writes every revocation made at since or later, one JSON
// object (Revocation) on each line, and returns how many. The zero time exports
// all that the store still knows.
//
// It is one half of coming back from a backup, which brings revoked credentials
// back to life: what was exported after the backup was taken is applied to the
// restored store with ApplyRevocations, before that is put to use. Export often,
// to another place than the store's, or write the same lines as they happen
// with an Observer.
func (m *Manager) ExportRevocations(ctx context.Context, w io.Writer, since time.Time) (int, error) {
	if m.closed.Load() {
		return 0, ErrClosed
	}
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return 0, fmt.Errorf("fob: export revocations: the store keeps no lists: %w", errors.ErrUnsupported)
	}
	n := 0
	out := json.NewEncoder(w)
	for _, kind := range []backend.Kind{recordSubject, recordKey} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return n, storeError("fob: export revocations", err)
			}
			for i := range page.Records {
				r, ok, err := revocationOf(&page.Records[i])
				if err != nil {
					return n, fmt.Errorf("fob: export revocations: %w", err)
				}
				if !ok || r.At.Before(since) {
					continue
				}
				if err := out.Encode(r); err != nil {
					return n, fmt.Errorf("fob: export revocations: %w", err)
				}
				n++
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return n, nil
}

// revocationOf is the revocation that a record says, if it says one.
func revocationOf(rec *backend.Record) (Revocation, bool, error) {
	if rec.Kind == recordSubject {
		epoch, reason, err := decodeEpoch(rec)
		if err != nil {
			return Revocation{}, false, err
		}
		return Revocation{
			Subject:     rec.Owner[1:],
			SubjectKind: SubjectKind(rec.Owner[0] - '0'),
			Epoch:       epoch,
			At:          instant(int64(epoch)), // a lower bound of it, in milliseconds
			Reason:      reason,
		}, true, nil
	}
	k, err := decodeKey(rec)
	if err != nil || k.status != StatusRevoked {
		return Revocation{}, false, err
	}
	return Revocation{ID: k.id, At: instant(k.revokedAt), Reason: k.reason}, true, nil
}

// Applied is what ApplyRevocations did.
type Applied struct {
	Revoked int // credentials and subjects that were not revoked before
	Already int // those that were
	Unknown int // credentials that the store does not have
}

// maxRevocation bounds one line of an export, in bytes.
const maxRevocation = 64 << 10

// ApplyRevocations reads what ExportRevocations wrote and revokes it all here.
// It can be repeated, and cut off and repeated: what is revoked stays so. Text
// that is no export is ErrInvalid, with the number of the line; the lines before
// it are applied.
func (m *Manager) ApplyRevocations(ctx context.Context, r io.Reader) (Applied, error) {
	var done Applied
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRevocation)
	for n := 1; lines.Scan(); n++ {
		var rev Revocation
		if err := json.Unmarshal(lines.Bytes(), &rev); err != nil {
			return done, fmt.Errorf("fob: apply revocations: line %d: %w", n, ErrInvalid)
		}
		if err := m.applyRevocation(ctx, rev, &done); err != nil {
			return done, fmt.Errorf("fob: apply revocations: line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return done, fmt.Errorf("fob: apply revocations: %w", err)
	}
	return done, nil
}

func (m *Manager) applyRevocation(ctx context.Context, rev Revocation, done *Applied) error {
	if !rev.ID.IsZero() == (rev.Subject != "") {
		return fmt.Errorf("%w: want a credential or a subject", ErrInvalid)
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
	if m.closed.Load() {
		return ErrClosed
	}
	if err := checkSubject(rev.Subject, rev.SubjectKind); err != nil {
		return err
	}
	if rev.Epoch == 0 || rev.Epoch > 1<<62 {
		return fmt.Errorf("%w: epoch %d", ErrInvalid, rev.Epoch)
	}
	epoch, _, err := m.readEpoch(ctx, subjectRecord(rev.SubjectKind, rev.Subject))
	if err != nil {
		return storeError("read", err)
	}
	if epoch >= rev.Epoch {
		m.forget(subjectRecord(rev.SubjectKind, rev.Subject)) // the feed may not have told of it yet
		done.Already++
		return nil
	}
	if err := m.raiseEpoch(ctx, rev.SubjectKind, rev.Subject, rev.Reason.clean(), rev.Epoch); err != nil {
		return err
	}
	done.Revoked++
	m.observe(Event{Type: EventSubjectRevoked, Subject: rev.Subject, SubjectKind: rev.SubjectKind, Reason: rev.Reason})
	return nil
}
