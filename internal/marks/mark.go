package marks

import (
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
)

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
	// State is odd while what the mark is about is disabled: a subject, an account, a token, a
	// family, or the tokens of an issuer that were issued before Held (Unix milliseconds). It
	// is at least the Unix time in milliseconds at which it was last changed.
	State uint64
	Held  int64
	// PurgeAt is when the record of a token's or a family's mark may be purged (Unix
	// milliseconds).
	PurgeAt int64
	Reason  string // a Set does not keep it
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

// Disabled reports whether what the mark is about is disabled.
func (k *Mark) Disabled() bool { return k.State&1 == 1 }

// DisablesToken reports whether the mark of a token, of a family or of an issuer disables
// a token that was issued at an instant (Unix milliseconds).
func (k *Mark) DisablesToken(issuedAt int64) bool {
	return k.Disabled() && (k.Held == 0 || issuedAt < k.Held)
}

// Raised returns the mark with a new epoch, which revokes whatever has the old one.
func (k Mark) Raised(now int64, reason string) Mark {
	k.Epoch, k.Reason = k.above(now), reason
	return k
}

// Switched returns the mark with a new state, which says disabled or not; k itself if it
// says so already, and for the same tokens. To disable fewer tokens than are disabled now
// enables none.
func (k Mark) Switched(disabled bool, held, now int64, reason string) Mark {
	if k.Disabled() == disabled && (!disabled || k.Held >= held) {
		return k
	}
	odd := uint64(0)
	if disabled {
		odd = 1
	}
	k.State = max(k.State+1, uint64(now))
	k.State += (k.State & 1) ^ odd
	if k.Reason = reason; disabled {
		k.Held = held
	}
	return k
}

// Join returns a mark that revokes what either of the two revokes, and is in the later
// state of the two.
func (k Mark) Join(o Mark) Mark {
	if k.earlier(&o) {
		k.State, k.Held = o.State, o.Held
	}
	k.Epoch, k.Ends, k.Before, k.PurgeAt = max(k.Epoch, o.Epoch), max(k.Ends, o.Ends), max(k.Before, o.Before), max(k.PurgeAt, o.PurgeAt)
	return k
}

// Covers reports whether k revokes all that o revokes, and is in a state at least as late.
func (k *Mark) Covers(o *Mark) bool {
	return k.Revokes(o) && !k.earlier(o) && k.PurgeAt >= o.PurgeAt
}

// Revokes reports whether k revokes all that o revokes, whatever is disabled.
func (k *Mark) Revokes(o *Mark) bool {
	return k.Epoch >= o.Epoch && k.Ends >= o.Ends && k.Before >= o.Before
}

// earlier reports whether o is in a later state than k. Of two states that were written in the
// same millisecond, one of them into a history that was lost, the one that disables more is.
func (k *Mark) earlier(o *Mark) bool {
	return k.State < o.State || k.State == o.State && k.Held < o.Held
}

// over reports whether what the mark revokes has expired by every clock.
func (k *Mark) over(now int64) bool { return k.PurgeAt > 0 && k.PurgeAt <= now }

// Is reports whether an ID is that of the record of a mark, of a subject or of an account.
// The first byte of the ID of a record that is not a credential is its kind.
func Is(id backend.ID) bool {
	return backend.Kind(id[0]) == record.Mark || isHolder(backend.Kind(id[0]))
}

// isHolder reports whether marks of a kind are about a subject or an account.
func isHolder(kind backend.Kind) bool { return kind == record.Subject || kind == record.Account }

// Decode reads the record of a mark, of a subject or of an account, or fails with
// errs.ErrCorrupt.
func Decode(rec *backend.Record) (Mark, error) {
	kind := rec.Kind
	if !isHolder(kind) {
		kind = record.Mark
	}
	r, err := record.Open(rec, kind)
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
		case record.FieldState:
			out.State = r.Number(v)
		case record.FieldHeld:
			out.Held = r.Millis(v)
		default:
			r.Bad = true
		}
	}
	if out.Epoch == 0 && out.Before != 0 && out.Before != clock.Forever {
		out.Epoch = 1 // the mark is older than epochs; it revokes credentials without a stamp, and a stamp is 1 or more
	}
	if r.Bad || !out.makesSense(rec) {
		return Mark{}, record.Corrupt(rec, "fields")
	}
	if rec.Kind == record.Mark && out.isOfToken() {
		out.PurgeAt = rec.PurgeAt
	}
	return out, nil
}

// makesSense reports whether a mark is one that is written, into such a record.
func (k *Mark) makesSense(rec *backend.Record) bool {
	switch rec.Kind {
	case record.Subject:
		return k.ofHolder() && record.KnownSubject(rec.Owner)
	case record.Account:
		return k.ofHolder() && rec.Owner != ""
	}
	if k.isOfToken() {
		return k.Epoch == 0 && k.Ends == 0 && k.Held == 0
	}
	revokes, switched := k.Before != 0 || k.Ends != 0, k.State != 0
	return revokes == (k.Epoch != 0) && switched == (k.Held != 0) && (revokes || switched) && k.Ends <= k.Epoch
}

// ofHolder reports whether a mark can be that of a subject or an account.
func (k *Mark) ofHolder() bool {
	return (k.Epoch != 0 || k.State != 0) && k.Before == 0 && k.Ends == 0 && k.Held == 0
}

// isOfToken reports whether a mark, which is not of a subject or an account, is that of a
// token or a family.
func (k *Mark) isOfToken() bool {
	return k.Before == clock.Forever || k.State != 0 && k.Held == 0 && k.Epoch == 0
}

// Encode writes a mark into the body of rec.
func (k *Mark) Encode(rec *backend.Record) {
	w := record.NewBody()
	w.Text(record.FieldReason, k.Reason)
	w.Number(record.FieldEpoch, k.Epoch)
	w.Number(record.FieldBefore, uint64(k.Before))
	w.Number(record.FieldEnds, k.Ends)
	w.Number(record.FieldState, k.State)
	w.Number(record.FieldHeld, uint64(k.Held))
	w.Finish(rec)
}
