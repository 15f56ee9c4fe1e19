package keystate

import (
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/record"
)

// Record returns the record of the key. purgeAt is when the store may purge the record;
// zero means never.
func (s *State) Record(purgeAt int64) backend.Record {
	rec := backend.Record{
		ID:      s.ID,
		Kind:    record.Key,
		Owner:   s.Owner,
		Parent:  s.Parent,
		Created: s.IssuedAt,
		Expires: s.EndsAt(),
		PurgeAt: purgeAt,
		Labels:  s.Labels(),
	}
	w := record.NewBody()
	w.Text(record.FieldStatus, string([]byte{byte(s.Status)}))
	w.Text(record.FieldPrefix, s.Prefix)
	w.Text(record.FieldName, s.Name)
	w.Text(record.FieldScopes, s.Scopes)
	w.Text(record.FieldTags, strings.Join(s.Tags, "\n"))
	w.Number(record.FieldNotBefore, uint64(s.NotBefore))
	w.Number(record.FieldExpiresAt, uint64(s.ExpiresAt))
	w.Number(record.FieldRetireAt, uint64(s.RetireAt))
	w.Number(record.FieldRevokedAt, uint64(s.RevokedAt))
	w.Text(record.FieldReason, s.Reason)
	w.ID(record.FieldSuccessor, s.Successor)
	w.ID(record.FieldPredecessor, s.Predecessor)
	w.Number(record.FieldRotating, s.Rotating)
	w.Number(record.FieldQuiet, uint64(s.Quiet))
	w.Number(record.FieldEpoch, s.Epoch)
	if s.ImportedHash == "" {
		w.Text(record.FieldDigest, string(s.Digest[:]))
	}
	w.Text(record.FieldPepper, s.Pepper)
	if s.Imported {
		w.Text(record.FieldImported, "\x01")
	}
	w.Text(record.FieldImportedHash, s.ImportedHash)
	w.ID(record.FieldAlias, s.Alias)
	w.ID(record.FieldSubjectRef, s.SubjectRef)
	w.Number(record.FieldLifetime, uint64(s.Lifetime))
	w.Number(record.FieldKeptUntil, uint64(s.KeptUntil))
	if s.Retired {
		w.Text(record.FieldRetired, "\x01")
	}
	w.ID(record.FieldAccountRef, s.AccountRef)
	w.Number(record.FieldAccountEpoch, s.AccountEpoch)
	w.Text(record.FieldGrants, encodeGrants(s.Grants))
	w.Text(record.FieldMeta, encodeMeta(s.Meta))
	w.Text(record.FieldRoles, strings.Join(s.Roles, "\n"))
	w.Finish(&rec)
	return rec
}

// knownOwner reports whether the subject makes sense, and has an account if the key has the
// record of one.
func (s *State) knownOwner() bool {
	_, account, _, ok := record.ParseOwner(s.Owner)
	return ok && (account != "") == (s.AccountRef != record.ID{})
}

// Same reports whether the records of two states have the same body.
func (s *State) Same(o *State) bool {
	return string(s.Record(0).Body) == string(o.Record(0).Body)
}

// Decode reads the record of a key into s, or fails with errs.ErrCorrupt. The texts in s
// are parts of the record.
func Decode(rec *backend.Record, s *State) error {
	r, err := record.Open(rec, record.Key)
	if err != nil {
		return err
	}
	if len(rec.Owner) < 2 {
		return record.Corrupt(rec, "owner")
	}
	*s = State{ID: rec.ID, Version: rec.Version, IssuedAt: rec.Created, Owner: rec.Owner, Parent: rec.Parent}
	digested, ok := false, true
	for field, v := range r.Fields {
		switch field {
		case record.FieldStatus:
			s.Status = Status(v[0])
			r.Bad = r.Bad || len(v) != 1
		case record.FieldPrefix:
			s.Prefix = v
		case record.FieldName:
			s.Name = v
		case record.FieldScopes:
			s.Scopes = v
		case record.FieldTags:
			s.Tags = strings.Split(v, "\n")
		case record.FieldNotBefore:
			s.NotBefore = r.Millis(v)
		case record.FieldExpiresAt:
			s.ExpiresAt = r.Millis(v)
		case record.FieldRetireAt:
			s.RetireAt = r.Millis(v)
		case record.FieldRevokedAt:
			s.RevokedAt = r.Millis(v)
		case record.FieldReason:
			s.Reason = v
		case record.FieldSuccessor:
			s.Successor = r.ID(v)
		case record.FieldPredecessor:
			s.Predecessor = r.ID(v)
		case record.FieldRotating:
			s.Rotating = r.Number(v)
		case record.FieldQuiet:
			s.Quiet = r.Millis(v)
		case record.FieldEpoch:
			s.Epoch = r.Number(v)
		case record.FieldDigest:
			digested = true
			r.Bad = r.Bad || copy(s.Digest[:], v) != len(v) || len(v) != len(s.Digest)
		case record.FieldPepper:
			s.Pepper = v
		case record.FieldImported:
			s.Imported = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldImportedHash:
			s.ImportedHash = v
		case record.FieldAlias:
			s.Alias = r.ID(v)
		case record.FieldSubjectRef:
			s.SubjectRef = r.ID(v)
		case record.FieldLifetime:
			s.Lifetime = r.Millis(v)
		case record.FieldKeptUntil:
			s.KeptUntil = r.Millis(v)
		case record.FieldRetired:
			s.Retired = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldAccountRef:
			s.AccountRef = r.ID(v)
		case record.FieldAccountEpoch:
			s.AccountEpoch = r.Number(v)
		case record.FieldGrants:
			s.Grants, ok = decodeGrants(v)
			r.Bad = r.Bad || !ok
		case record.FieldMeta:
			s.Meta, ok = decodeMeta(v)
			r.Bad = r.Bad || !ok
		case record.FieldRoles:
			s.Roles = strings.Split(v, "\n")
		default:
			r.Bad = true
		}
	}
	switch {
	case r.Bad:
		return record.Corrupt(rec, "fields")
	case s.Status != Active && s.Status != Disabled && s.Status != Revoked:
		return record.Corrupt(rec, "status")
	case !s.knownOwner():
		return record.Corrupt(rec, "subject kind")
	case s.Parent == s.ID:
		return record.Corrupt(rec, "parent")
	case digested == (s.ImportedHash != ""):
		return record.Corrupt(rec, "digest")
	case s.SubjectRef == record.ID{}:
		return record.Corrupt(rec, "subject")
	}
	return nil
}
