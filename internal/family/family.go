// Package family keeps families: a family is one session, a chain of single-use refresh
// secrets, by which one access token after the other is given out. It does not know what is
// in an access token, nor when a family is refreshed or revoked; it reads and writes no
// store.
package family

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/record"
)

// Family is one such chain. All of it is in one record, which is replaced by
// compare-and-set. So of any number of concurrent refreshes one makes the successor, and a
// crash leaves the chain as it was before the refresh or as it is after it. Times are in
// Unix milliseconds. A Family is for one goroutine at a time.
type Family struct {
	ID     backend.ID // of the family; its record has another ID, see RecordID
	Owner  string     // the subject, by which stores list records
	Parent backend.ID // the key with which the session began; zero for none
	Claims string     // the claims of each access token, as they are written in a token

	Version uint64 // of the record; zero for a family that was never written
	// Begun is when the first token was issued. Ends is when the family ends, whatever is
	// done with it. IdleUntil is when it ends unless a secret is used before. That its key
	// may end earlier is not in here: it is looked up each time.
	Begun, Ends, IdleUntil int64
	RefreshedAt            int64  // when it was last continued; zero if never
	Label                  string // a text for people
	TTL                    int64  // the lifetime that was asked for each access token, in milliseconds
	// Ended says that the family was revoked, EndedAt when (zero: not known), and Reason
	// why. A family that is older than the tags in secrets counts as revoked, because nobody
	// could tell which of its secrets were used.
	Ended   bool
	EndedAt int64
	Reason  string

	tagKey  string            // the key of the tags in the secrets; see IssuedOnce
	current [sha256.Size]byte // the digest of the current secret, which was not used yet
	links   []link            // the links of the secrets that were used lately, the latest last
	answer  string            // the access token that was given out last, sealed under the current secret
}

// RecordID returns the ID of the record of a family.
func RecordID(id backend.ID) record.ID { return record.Named(record.Family, string(id[:])) }

// Begin makes the first secret of a new family, whose exported fields are set, and returns
// it.
func (f *Family) Begin() (secret string) {
	var key [tagKeyLen]byte
	_, _ = rand.Read(key[:]) // never returns an error (crypto/rand)
	f.tagKey = string(key[:])
	secret, _ = f.draw()
	f.current = digest(secret)
	return secret
}

// IsCurrent reports whether a text is the current secret of the family, which was not used
// yet.
func (f *Family) IsCurrent(presented string) bool {
	d := digest(presented)
	return subtle.ConstantTimeCompare(d[:], f.current[:]) == 1
}

// End revokes the family, and removes everything with which somebody could continue it.
func (f *Family) End(now int64, reason string) {
	f.Ended, f.EndedAt, f.Reason, f.answer, f.links = true, now, reason, "", nil
}

// Record returns the record of the family, which may be purged from purgeAt on.
func (f *Family) Record(purgeAt int64) backend.Record {
	rec := backend.Record{
		ID: RecordID(f.ID), Kind: record.Family, Owner: f.Owner,
		Parent: f.Parent, Created: f.Begun, Expires: f.Ends, PurgeAt: purgeAt,
	}
	if _, account, _, _ := record.ParseOwner(f.Owner); account != "" {
		rec.Labels = record.Labels(record.AccountLabel(account))
	}
	w := record.NewBody()
	w.Number(record.FieldRevokedAt, uint64(f.EndedAt))
	w.Text(record.FieldReason, f.Reason)
	w.Text(record.FieldDigest, string(f.current[:]))
	w.Number(record.FieldLifetime, uint64(f.TTL))
	w.ID(record.FieldTarget, f.ID)
	w.Text(record.FieldSealed, f.answer)
	w.Number(record.FieldIdleUntil, uint64(f.IdleUntil))
	w.Text(record.FieldClaims, f.Claims)
	if f.Ended {
		w.Text(record.FieldEnded, "\x01")
	}
	w.Text(record.FieldTagKey, f.tagKey)
	w.Text(record.FieldLinks, encodeLinks(f.links))
	w.Number(record.FieldRefreshedAt, uint64(f.RefreshedAt))
	w.Text(record.FieldLabel, f.Label)
	w.Finish(&rec)
	return rec
}

// Decode reads the record of a family, or fails with errs.ErrCorrupt. It does not check
// Claims: the caller does, who knows how to read them.
func Decode(rec *backend.Record) (*Family, error) {
	r, err := record.Open(rec, record.Family)
	if err != nil {
		return nil, err
	}
	f := &Family{Version: rec.Version, Owner: rec.Owner, Parent: rec.Parent, Begun: rec.Created, Ends: rec.Expires}
	for field, v := range r.Fields {
		switch field {
		case record.FieldReason:
			f.Reason = v
		case record.FieldDigest:
			r.Bad = r.Bad || copy(f.current[:], v) != len(v) || len(v) != len(f.current)
		case record.FieldLifetime:
			f.TTL = r.Millis(v)
		case record.FieldTarget:
			f.ID = r.ID(v)
		case record.FieldSealed:
			f.answer = v
		case record.FieldIdleUntil:
			f.IdleUntil = r.Millis(v)
		case record.FieldClaims:
			f.Claims = v
		case record.FieldEnded:
			f.Ended = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldRevokedAt:
			f.EndedAt = r.Millis(v)
		case record.FieldAnswerUntil, record.FieldUsed:
		case record.FieldTagKey:
			f.tagKey = v
		case record.FieldLinks:
			links, ok := decodeLinks(v)
			f.links, r.Bad = links, r.Bad || !ok
		case record.FieldRefreshedAt:
			f.RefreshedAt = r.Millis(v)
		case record.FieldLabel:
			f.Label = v
		default:
			r.Bad = true
		}
	}
	r.Bad = r.Bad || f.EndedAt != 0 && !f.Ended
	if f.tagKey == "" {
		f.Ended = true // the family is older than tags
	} else {
		r.Bad = r.Bad || len(f.tagKey) != tagKeyLen
	}
	if r.Bad || f.TTL == 0 || f.IdleUntil == 0 || f.current == ([sha256.Size]byte{}) || RecordID(f.ID) != rec.ID {
		return nil, record.Corrupt(rec, "fields")
	}
	return f, nil
}
