package fob

import (
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/record"
)

// family is what Refresh continues: one chain of single-use secrets. All of it is
// one record, replaced by compare-and-swap, so that of any number of concurrent
// refreshes one makes the successor, and a crash leaves the chain as it was
// before or as it is after, never two of it.
type family struct {
	id      ID
	spec    *Token // what each access token is to be; its times are those of the first
	version uint64

	// Unix milliseconds. Where the key of the family ends is not among them: it is looked
	// at each time.
	begun, ends, idleUntil int64
	ttl                    int64  // that was asked for an access token, milliseconds
	tagKey                 string // see issuedOnce
	current                Digest
	links                  []link // of the secrets that were used lately, the last one last
	answer                 string // the access token given last, sealed under the current secret
	ended                  bool
	reason                 RevokeReason
	stamp                  uint64 // the issuer's epoch as familyKey has read it; not stored
}

func familyRecord(id ID) record.ID { return record.Named(record.Family, string(id[:])) }

// encodeFamily makes the record of a family. The claims of its tokens are kept as
// they are written in a token.
func (m *Manager) encodeFamily(f *family) (backend.Record, error) {
	payload, err := f.spec.payload()
	if err != nil {
		return backend.Record{}, err
	}
	rec := backend.Record{
		ID: familyRecord(f.id), Kind: record.Family, Owner: owner(f.spec.subjectKind, f.spec.subject),
		Parent: backend.ID(f.spec.parent), Created: f.begun, Expires: f.ends, PurgeAt: m.retained(f.ends),
	}
	w := record.NewBody()
	w.Text(record.FieldReason, string(f.reason))
	w.Text(record.FieldDigest, string(f.current.sum[:]))
	w.Number(record.FieldLifetime, uint64(f.ttl))
	w.ID(record.FieldTarget, f.id)
	w.Text(record.FieldSealed, f.answer)
	w.Number(record.FieldIdleUntil, uint64(f.idleUntil))
	w.Text(record.FieldClaims, string(payload))
	if f.ended {
		w.Text(record.FieldEnded, "\x01")
	}
	w.Text(record.FieldTagKey, f.tagKey)
	w.Text(record.FieldLinks, encodeLinks(f.links))
	w.Seal(&rec)
	return rec, nil
}

func (m *Manager) decodeFamily(rec *backend.Record) (*family, error) {
	r, err := record.Open(rec, record.Family)
	if err != nil {
		return nil, err
	}
	f := &family{version: rec.Version, begun: rec.Created, ends: rec.Expires}
	var payload string
	for field, v := range r.Fields {
		switch field {
		case record.FieldReason:
			f.reason = RevokeReason(v)
		case record.FieldDigest:
			r.Bad = r.Bad || copy(f.current.sum[:], v) != len(v) || len(v) != len(f.current.sum)
		case record.FieldLifetime:
			f.ttl = r.Millis(v)
		case record.FieldTarget:
			f.id = r.ID(v)
		case record.FieldSealed:
			f.answer = v
		case record.FieldIdleUntil:
			f.idleUntil = r.Millis(v)
		case record.FieldClaims:
			payload = v
		case record.FieldEnded:
			f.ended = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldAnswerUntil, record.FieldUsed:
		case record.FieldTagKey:
			f.tagKey = v
		case record.FieldLinks:
			links, ok := decodeLinks(v)
			f.links, r.Bad = links, r.Bad || !ok
		default:
			r.Bad = true
		}
	}
	if f.tagKey == "" {
		f.ended = true // from before secrets had tags: nobody could tell which of them was used
	} else {
		r.Bad = r.Bad || len(f.tagKey) != tagKeyLen
	}
	if r.Bad || f.ttl == 0 || f.idleUntil == 0 || f.current == (Digest{}) || familyRecord(f.id) != rec.ID {
		return nil, record.Corrupt(rec, "fields")
	}
	if f.spec, err = decodeToken([]byte(payload), ""); err != nil || f.spec.family != f.id {
		return nil, record.Corrupt(rec, "claims")
	}
	return f, nil
}
