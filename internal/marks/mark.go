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

// Join returns a mark that revokes what either of the two revokes.
func (k Mark) Join(o Mark) Mark {
	k.Epoch, k.Ends, k.Before, k.PurgeAt = max(k.Epoch, o.Epoch), max(k.Ends, o.Ends), max(k.Before, o.Before), max(k.PurgeAt, o.PurgeAt)
	return k
}

// Covers reports whether k revokes all that o revokes.
func (k *Mark) Covers(o *Mark) bool {
	return k.Epoch >= o.Epoch && k.Ends >= o.Ends && k.Before >= o.Before && k.PurgeAt >= o.PurgeAt
}

// over reports whether what the mark revokes has expired by every clock.
func (k *Mark) over(now int64) bool { return k.PurgeAt > 0 && k.PurgeAt <= now }

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
	if out.Before == clock.Forever {
		out.PurgeAt = rec.PurgeAt
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
