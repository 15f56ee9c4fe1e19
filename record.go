package fob

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/record"
)

func subjectRecord(kind SubjectKind, subject string) record.ID {
	return record.Named(record.Subject, owner(kind, subject))
}

// owner is a subject with its kind, as stores list by it.
func owner(kind SubjectKind, subject string) string {
	return string([]byte{'0' + byte(kind)}) + subject
}

// encodeKey makes the record of k. purgeAt is when it may be forgotten.
func encodeKey(k *Key, purgeAt int64) backend.Record {
	rec := backend.Record{
		ID:      backend.ID(k.id),
		Kind:    record.Key,
		Owner:   owner(k.subjectKind, k.subject),
		Created: k.issuedAt,
		Expires: k.endsAt(),
		PurgeAt: purgeAt,
	}
	w := record.NewBody()
	w.Text(record.FieldStatus, string([]byte{byte(k.status)}))
	w.Text(record.FieldPrefix, k.prefix)
	w.Text(record.FieldName, k.name)
	w.Text(record.FieldScopes, k.scopes.String())
	w.Text(record.FieldTags, strings.Join(k.tags, "\n"))
	w.Number(record.FieldNotBefore, uint64(k.notBefore))
	w.Number(record.FieldExpiresAt, uint64(k.expiresAt))
	w.Number(record.FieldRetireAt, uint64(k.retireAt))
	w.Number(record.FieldRevokedAt, uint64(k.revokedAt))
	w.Text(record.FieldReason, string(k.reason))
	w.ID(record.FieldSuccessor, k.successor)
	w.ID(record.FieldPredecessor, k.predecessor)
	w.Number(record.FieldRotating, k.rotating)
	w.Number(record.FieldQuiet, uint64(k.quiet))
	w.Number(record.FieldEpoch, k.epoch)
	if k.legacy == "" {
		w.Text(record.FieldDigest, string(k.digest.sum[:]))
	}
	w.Text(record.FieldPepper, k.pepper)
	if k.foreign {
		w.Text(record.FieldForeign, "\x01")
	}
	w.Text(record.FieldLegacy, k.legacy)
	w.ID(record.FieldAlias, k.alias)
	w.ID(record.FieldSubjectRef, k.subjectRef)
	w.Number(record.FieldLifetime, uint64(k.lifetime))
	w.Number(record.FieldKeptUntil, uint64(k.keptUntil))
	if k.retired {
		w.Text(record.FieldRetired, "\x01")
	}
	w.Seal(&rec)
	return rec
}

// decodeKey reads the record of a key, or fails with ErrCorrupt.
func decodeKey(rec *backend.Record) (*Key, error) {
	r, err := record.Open(rec, record.Key)
	if err != nil {
		return nil, err
	}
	if len(rec.Owner) < 2 {
		return nil, record.Corrupt(rec, "owner")
	}
	m := new(decodedKey)
	k := &m.key
	k.asOf = &m.asOf
	k.id, k.version, k.issuedAt = ID(rec.ID), rec.Version, rec.Created
	k.subjectKind, k.subject = SubjectKind(rec.Owner[0]-'0'), rec.Owner[1:]
	var digested bool
	for field, v := range r.Fields {
		switch field {
		case record.FieldStatus:
			k.status = Status(v[0])
			r.Bad = r.Bad || len(v) != 1
		case record.FieldPrefix:
			k.prefix = v
		case record.FieldName:
			k.name = v
		case record.FieldScopes:
			k.scopes = splitScopes(m.scopes[:0], v)
		case record.FieldTags:
			k.tags = strings.Split(v, "\n")
		case record.FieldNotBefore:
			k.notBefore = r.Millis(v)
		case record.FieldExpiresAt:
			k.expiresAt = r.Millis(v)
		case record.FieldRetireAt:
			k.retireAt = r.Millis(v)
		case record.FieldRevokedAt:
			k.revokedAt = r.Millis(v)
		case record.FieldReason:
			k.reason = RevokeReason(v)
		case record.FieldSuccessor:
			k.successor = r.ID(v)
		case record.FieldPredecessor:
			k.predecessor = r.ID(v)
		case record.FieldRotating:
			k.rotating = r.Number(v)
		case record.FieldQuiet:
			k.quiet = r.Millis(v)
		case record.FieldEpoch:
			k.epoch = r.Number(v)
		case record.FieldDigest:
			digested = true
			r.Bad = r.Bad || copy(k.digest.sum[:], v) != len(v) || len(v) != len(k.digest.sum)
		case record.FieldPepper:
			k.pepper = v
		case record.FieldForeign:
			k.foreign = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldLegacy:
			k.legacy = v
		case record.FieldAlias:
			k.alias = r.ID(v)
		case record.FieldSubjectRef:
			k.subjectRef = r.ID(v)
		case record.FieldLifetime:
			k.lifetime = r.Millis(v)
		case record.FieldKeptUntil:
			k.keptUntil = r.Millis(v)
		case record.FieldRetired:
			k.retired = true
			r.Bad = r.Bad || v != "\x01"
		default:
			r.Bad = true
		}
	}
	switch {
	case r.Bad:
		return nil, record.Corrupt(rec, "fields")
	case k.status != StatusActive && k.status != StatusDisabled && k.status != StatusRevoked:
		return nil, record.Corrupt(rec, "status")
	case !k.subjectKind.valid():
		return nil, record.Corrupt(rec, "subject kind")
	case digested == (k.legacy != ""):
		return nil, record.Corrupt(rec, "digest")
	case k.subjectRef == record.ID{}:
		return nil, record.Corrupt(rec, "subject")
	}
	return k, nil
}

// decodedKey is a key and what it points to, in one piece of memory.
type decodedKey struct {
	key    Key
	asOf   atomic.Int64
	scopes [4]Scope // room for as many as most keys have
}

// splitScopes is the reverse of Scopes.String, for text that was checked. It uses the
// room of scopes if that is enough.
func splitScopes(scopes Scopes, text string) Scopes {
	if n := strings.Count(text, " ") + 1; n > cap(scopes) {
		scopes = make(Scopes, 0, n)
	}
	for {
		i := strings.IndexByte(text, ' ')
		if i < 0 {
			scopes = append(scopes, Scope(text))
			return slices.Clip(scopes) // not into anybody else's room
		}
		scopes = append(scopes, Scope(text[:i]))
		text = text[i+1:]
	}
}
