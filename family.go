package fob

import "github.com/fobkit/fob/backend"

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

func familyRecord(id ID) recordID { return namedRecord(recordFamily, string(id[:])) }

// encodeFamily makes the record of a family. The claims of its tokens are kept as
// they are written in a token.
func (m *Manager) encodeFamily(f *family) (backend.Record, error) {
	payload, err := f.spec.payload()
	if err != nil {
		return backend.Record{}, err
	}
	rec := backend.Record{
		ID: familyRecord(f.id), Kind: recordFamily, Owner: owner(f.spec.subjectKind, f.spec.subject),
		Parent: backend.ID(f.spec.parent), Created: f.begun, Expires: f.ends, PurgeAt: m.retained(f.ends),
	}
	w := newBody()
	w.text(fieldReason, string(f.reason))
	w.text(fieldDigest, string(f.current.sum[:]))
	w.number(fieldLifetime, uint64(f.ttl))
	w.id(fieldTarget, f.id)
	w.text(fieldSealed, f.answer)
	w.number(fieldIdleUntil, uint64(f.idleUntil))
	w.text(fieldClaims, string(payload))
	if f.ended {
		w.text(fieldEnded, "\x01")
	}
	w.text(fieldTagKey, f.tagKey)
	w.text(fieldLinks, encodeLinks(f.links))
	w.seal(&rec)
	return rec, nil
}

func (m *Manager) decodeFamily(rec *backend.Record) (*family, error) {
	r, err := openBody(rec, recordFamily)
	if err != nil {
		return nil, err
	}
	f := &family{version: rec.Version, begun: rec.Created, ends: rec.Expires}
	var payload string
	for {
		field, v, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case fieldReason:
			f.reason = RevokeReason(v)
		case fieldDigest:
			r.bad = r.bad || copy(f.current.sum[:], v) != len(v) || len(v) != len(f.current.sum)
		case fieldLifetime:
			f.ttl = r.millis(v)
		case fieldTarget:
			f.id = r.id(v)
		case fieldSealed:
			f.answer = v
		case fieldIdleUntil:
			f.idleUntil = r.millis(v)
		case fieldClaims:
			payload = v
		case fieldEnded:
			f.ended = true
			r.bad = r.bad || v != "\x01"
		case fieldAnswerUntil, fieldUsed:
		case fieldTagKey:
			f.tagKey = v
		case fieldLinks:
			links, ok := decodeLinks(v)
			f.links, r.bad = links, r.bad || !ok
		default:
			r.bad = true
		}
	}
	if f.tagKey == "" {
		f.ended = true // from before secrets had tags: nobody could tell which of them was used
	} else {
		r.bad = r.bad || len(f.tagKey) != tagKeyLen
	}
	if r.bad || f.ttl == 0 || f.idleUntil == 0 || f.current == (Digest{}) || familyRecord(f.id) != rec.ID {
		return nil, corrupt(rec, "fields")
	}
	if f.spec, err = decodeToken([]byte(payload), ""); err != nil || f.spec.family != f.id {
		return nil, corrupt(rec, "claims")
	}
	return f, nil
}
