// Package marks holds the marks of a store: records that revoke credentials without a change
// of the credentials' own records. It has the set of all marks, which the store's feed keeps
// up to date (marks.go), and writes marks (ledger.go). It does not know what a credential is,
// nor how a token is checked: its callers ask whether a mark revokes what they hold.
package marks

import (
	"sync"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
)

// Set is the set of all marks, which are records that revoke credentials without changing
// their own records: marks of single tokens and families, marks that revoke what an issuer
// issued before an instant, and the epochs of subjects. Only what was revoked has a mark,
// so there are few, and the set of all of them is kept up to date by the store's feed.
// While the feed is alive, nothing has to be read from the store to know that a token is
// not revoked. A Set is safe for concurrent use.
type Set struct {
	Follows bool                // there is a feed; without one the set stays empty
	forget  func(...backend.ID) // drops the answers in memory that were made from these records

	mu  sync.RWMutex // guards all
	all map[record.ID]Mark
}

// New makes a set without marks. follows says that there is a feed. forget drops the
// answers in memory that were made from a mark.
func New(follows bool, forget func(...backend.ID)) *Set {
	return &Set{Follows: follows, forget: forget, all: make(map[record.ID]Mark)}
}

// Mark is the content of one such record. Its numbers only rise. The zero Mark revokes
// nothing.
type Mark struct {
	// Epoch is the epoch of a subject or an issuer. A credential is stamped with the epoch
	// at issue. A credential of a subject is revoked if its stamp is lower.
	Epoch uint64
	// Ends is set in the mark of an issuer: a credential is revoked if its stamp is lower,
	// whenever it was issued.
	Ends uint64
	// Before is clock.Forever in the mark of a single token or a family, which is revoked.
	// In the mark of an issuer it is an instant in Unix milliseconds: a credential is
	// revoked if its stamp is lower than Epoch and it was issued before that instant.
	Before int64
	Reason string
	// Bad is why the record cannot be read. Then it is unknown whether what the mark is
	// about is revoked; no other credential depends on it.
	Bad error
}

// EndsToken reports whether the mark of a token, of a family or of an issuer revokes a
// token, which was stamped with an epoch of its issuer and issued at an instant (Unix
// milliseconds). The clock decides only whether a token was issued before an instant, and
// only if the token has a lower stamp: a token whose issuer knew of the mark was issued
// after it, however late the issuer's clock is.
func (k *Mark) EndsToken(stamp uint64, issuedAt int64) bool {
	return k.Before == clock.Forever || stamp < k.Ends || stamp < k.Epoch && issuedAt < k.Before
}

// Join returns a mark that revokes what either of the two revokes.
func (k Mark) Join(o Mark) Mark {
	k.Epoch, k.Ends, k.Before = max(k.Epoch, o.Epoch), max(k.Ends, o.Ends), max(k.Before, o.Before)
	return k
}

// Covers reports whether k revokes all that o revokes.
func (k *Mark) Covers(o *Mark) bool {
	return k.Epoch >= o.Epoch && k.Ends >= o.Ends && k.Before >= o.Before
}

// Get returns the mark whose record has an ID; the zero Mark if none is known.
func (s *Set) Get(id record.ID) Mark {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[id]
}

// Raise adds what a mark says to the set. An older state never replaces a newer one,
// because epochs and instants only rise. The answers that were made from the older state
// are dropped before any caller can see the new one and tell of it.
func (s *Set) Raise(id record.ID, to Mark) {
	if !s.Follows {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[id]; old.Bad == nil {
		if old.Covers(&to) {
			return
		}
		to = to.Join(old) // what one of the two revokes stays revoked
	}
	s.all[id] = to
	s.forget(id)
}

// Spoil replaces a mark by one whose Bad says why the record cannot be read.
func (s *Set) Spoil(id record.ID, bad Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[id] = bad
}

// Replace replaces the set by all marks as they were read anew. mended is called for each
// mark that could not be read before and can be read now.
func (s *Set) Replace(all map[record.ID]Mark, mended func(record.ID)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, own := range s.all {
		// This process may have written a mark after the page with that mark was read.
		read := all[id]
		if own.Bad != nil && read.Bad == nil {
			mended(id)
		}
		if read.Bad == nil && !read.Covers(&own) {
			all[id] = own.Join(read)
		}
	}
	s.all = all
}

// Drop removes a mark whose record was purged, if the set still has the state was, from
// before the purge was noticed: this process may have written the mark again.
func (s *Set) Drop(id record.ID, was Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[id] == was {
		delete(s.all, id)
	}
}

// Is reports whether an ID is that of the record of a mark or of a subject. The first byte
// of the ID of a record that is not a credential is its kind.
func Is(id backend.ID) bool {
	return backend.Kind(id[0]) == record.Mark || backend.Kind(id[0]) == record.Subject
}

// DecodeEpoch reads the record of a subject. It sets only the epoch and the reason. It
// fails with errs.ErrCorrupt.
func DecodeEpoch(rec *backend.Record) (Mark, error) {
	r, err := record.Open(rec, record.Subject)
	if err != nil {
		return Mark{}, err
	}
	var out Mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldEpoch:
			out.Epoch = r.Number(v)
		case record.FieldReason:
			out.Reason = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || out.Epoch == 0 || !record.KnownSubject(rec.Owner) {
		return Mark{}, record.Corrupt(rec, "epoch")
	}
	return out, nil
}

// Decode reads the record of a mark or of a subject, or fails with errs.ErrCorrupt.
func Decode(rec *backend.Record) (Mark, error) {
	if rec.Kind == record.Subject {
		return DecodeEpoch(rec)
	}
	r, err := record.Open(rec, record.Mark)
	if err != nil {
		return Mark{}, err
	}
	var out Mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldReason:
			out.Reason = v
		case record.FieldEpoch:
			out.Epoch = r.Number(v)
		case record.FieldBefore:
			out.Before = r.Millis(v)
		case record.FieldEnds:
			out.Ends = r.Number(v)
		default:
			r.Bad = true
		}
	}
	if out.Epoch == 0 && out.Before != 0 && out.Before != clock.Forever {
		out.Epoch = 1 // the mark is older than epochs; it revokes credentials without a stamp, and a stamp is 1 or more
	}
	if r.Bad || out.Before == 0 && out.Ends == 0 || out.Ends > out.Epoch || (out.Before == clock.Forever) != (out.Epoch == 0) {
		return Mark{}, record.Corrupt(rec, "fields")
	}
	return out, nil
}

// Encode writes a mark that is not the epoch of a subject into the body of rec.
func (k *Mark) Encode(rec *backend.Record) {
	w := record.NewBody()
	w.Text(record.FieldReason, k.Reason)
	w.Number(record.FieldEpoch, k.Epoch)
	w.Number(record.FieldBefore, uint64(k.Before))
	w.Number(record.FieldEnds, k.Ends)
	w.Finish(rec)
}
