package fob

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
)

// The kinds of record in a store.
const (
	recordKey         backend.Kind = 1 + iota // one key; its ID is the key's
	recordSubject                             // the epoch of one subject
	recordAlias                               // from the text of an imported key to its record
	recordIdempotency                         // the sealed answer of one IssueKey
	recordRotation                            // a rotated key that may retire early
	recordMark                                // what ended a token, a family, or all before an instant
	recordRing                                // the token keys, sealed
	recordFamily                              // what Refresh continues
	recordFleet                               // how old an answer may be in any process
	recordCheck                               // by which a secret of Config is recognised
)

// recordID is the ID of a record that is not a credential: its kind, then 15
// bytes of SHA-256 over what it is named by. No credential's ID begins with
// such a byte, so the two never meet.
type recordID = backend.ID

func namedRecord(kind backend.Kind, name ...string) recordID {
	h := sha256.New()
	h.Write([]byte{'f', 'o', 'b', 1, byte(kind)})
	var n [8]byte
	for _, part := range name {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	id := recordID{byte(kind)}
	copy(id[1:], sum[:])
	return id
}

func subjectRecord(kind SubjectKind, subject string) recordID {
	return namedRecord(recordSubject, owner(kind, subject))
}

// owner is a subject with its kind, as stores list by it.
func owner(kind SubjectKind, subject string) string {
	return string([]byte{'0' + byte(kind)}) + subject
}

// encodeKey makes the record of k. purgeAt is when it may be forgotten.
func encodeKey(k *Key, purgeAt int64) backend.Record {
	rec := backend.Record{
		ID:      backend.ID(k.id),
		Kind:    recordKey,
		Owner:   owner(k.subjectKind, k.subject),
		Created: k.issuedAt,
		Expires: k.endsAt(),
		PurgeAt: purgeAt,
	}
	w := newBody()
	w.text(fieldStatus, string([]byte{byte(k.status)}))
	w.text(fieldPrefix, k.prefix)
	w.text(fieldName, k.name)
	w.text(fieldScopes, k.scopes.String())
	w.text(fieldTags, strings.Join(k.tags, "\n"))
	w.number(fieldNotBefore, uint64(k.notBefore))
	w.number(fieldExpiresAt, uint64(k.expiresAt))
	w.number(fieldRetireAt, uint64(k.retireAt))
	w.number(fieldRevokedAt, uint64(k.revokedAt))
	w.text(fieldReason, string(k.reason))
	w.id(fieldSuccessor, k.successor)
	w.id(fieldPredecessor, k.predecessor)
	w.number(fieldRotating, k.rotating)
	w.number(fieldQuiet, uint64(k.quiet))
	w.number(fieldEpoch, k.epoch)
	if k.legacy == "" {
		w.text(fieldDigest, string(k.digest.sum[:]))
	}
	w.text(fieldPepper, k.pepper)
	if k.foreign {
		w.text(fieldForeign, "\x01")
	}
	w.text(fieldLegacy, k.legacy)
	w.id(fieldAlias, k.alias)
	w.id(fieldSubjectRef, k.subjectRef)
	w.number(fieldLifetime, uint64(k.lifetime))
	w.number(fieldKeptUntil, uint64(k.keptUntil))
	if k.retired {
		w.text(fieldRetired, "\x01")
	}
	w.seal(&rec)
	return rec
}

// decodeKey reads the record of a key, or fails with ErrCorrupt.
func decodeKey(rec *backend.Record) (*Key, error) {
	r, err := openBody(rec, recordKey)
	if err != nil {
		return nil, err
	}
	if len(rec.Owner) < 2 {
		return nil, corrupt(rec, "owner")
	}
	m := new(decodedKey)
	k := &m.key
	k.asOf = &m.asOf
	k.id, k.version, k.issuedAt = ID(rec.ID), rec.Version, rec.Created
	k.subjectKind, k.subject = SubjectKind(rec.Owner[0]-'0'), rec.Owner[1:]
	var digested bool
	for {
		field, v, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case fieldStatus:
			k.status = Status(v[0])
			r.bad = r.bad || len(v) != 1
		case fieldPrefix:
			k.prefix = v
		case fieldName:
			k.name = v
		case fieldScopes:
			k.scopes = splitScopes(m.scopes[:0], v)
		case fieldTags:
			k.tags = strings.Split(v, "\n")
		case fieldNotBefore:
			k.notBefore = r.millis(v)
		case fieldExpiresAt:
			k.expiresAt = r.millis(v)
		case fieldRetireAt:
			k.retireAt = r.millis(v)
		case fieldRevokedAt:
			k.revokedAt = r.millis(v)
		case fieldReason:
			k.reason = RevokeReason(v)
		case fieldSuccessor:
			k.successor = r.id(v)
		case fieldPredecessor:
			k.predecessor = r.id(v)
		case fieldRotating:
			k.rotating = r.number(v)
		case fieldQuiet:
			k.quiet = r.millis(v)
		case fieldEpoch:
			k.epoch = r.number(v)
		case fieldDigest:
			digested = true
			r.bad = r.bad || copy(k.digest.sum[:], v) != len(v) || len(v) != len(k.digest.sum)
		case fieldPepper:
			k.pepper = v
		case fieldForeign:
			k.foreign = true
			r.bad = r.bad || v != "\x01"
		case fieldLegacy:
			k.legacy = v
		case fieldAlias:
			k.alias = r.id(v)
		case fieldSubjectRef:
			k.subjectRef = r.id(v)
		case fieldLifetime:
			k.lifetime = r.millis(v)
		case fieldKeptUntil:
			k.keptUntil = r.millis(v)
		case fieldRetired:
			k.retired = true
			r.bad = r.bad || v != "\x01"
		default:
			r.bad = true
		}
	}
	switch {
	case r.bad:
		return nil, corrupt(rec, "fields")
	case k.status != StatusActive && k.status != StatusDisabled && k.status != StatusRevoked:
		return nil, corrupt(rec, "status")
	case !k.subjectKind.valid():
		return nil, corrupt(rec, "subject kind")
	case digested == (k.legacy != ""):
		return nil, corrupt(rec, "digest")
	case k.subjectRef == recordID{}:
		return nil, corrupt(rec, "subject")
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
