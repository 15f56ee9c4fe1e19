package imported

import (
	"context"
	"crypto/sha256"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/record"
)

// alias is a record that leads from a property of the text of an imported key to the record
// of the key.
type alias struct {
	target  record.ID
	pending bool   // the import has not finished
	print   string // by which the imported key is recognised; see printUnder
	rec     backend.Record
	cond    backend.Cond // the condition that the alias is still as it was read
}

func (a *alias) record() backend.Record {
	rec := a.rec
	w := record.NewBody()
	w.ID(record.FieldTarget, a.target)
	if a.pending {
		w.Text(record.FieldPending, "\x01")
	}
	w.Text(record.FieldPrint, a.print)
	w.Finish(&rec)
	return rec
}

func (s *Store) readAlias(ctx context.Context, ref record.ID) (*alias, error) {
	rec, err := s.Get(ctx, ref)
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	r, err := record.Open(&rec, record.Alias)
	if err != nil {
		return nil, err
	}
	a := &alias{rec: rec, cond: backend.IfVersion(rec.Version)}
	for field, v := range r.Fields {
		switch field {
		case record.FieldTarget:
			a.target = r.ID(v)
		case record.FieldPending:
			a.pending = true
			r.Bad = r.Bad || v != "\x01"
		case record.FieldPrint:
			a.print = v
			r.Bad = r.Bad || len(v) != 2+int(v[min(1, len(v)-1)])+printLen
		default:
			r.Bad = true
		}
	}
	if r.Bad || a.target == (record.ID{}) {
		return nil, record.Corrupt(&rec, "fields")
	}
	return a, nil
}

// What a print can be made of. The numbers are stored.
const (
	printSum  = 1 + iota // SHA-256 of the key
	printHash            // the text of another hash of the key, or of a hash of a part of it
	printOwn             // Store.Digest of the key
)

// printLen is how many bytes of the digest a print keeps: enough for two keys never to have
// the same print.
const printLen = 16

// printUnder returns the print of an import: what the print is made of, the ID of a pepper,
// and a digest of the material under that pepper. The print is kept as long as the alias.
// So a key that is imported once more is recognised, even if its record was rehashed or
// purged, and another key with the same locator is told from it. Whoever has the print but
// not the pepper cannot check a guess of the key with it. ok is false if the pepper is not
// configured here.
func (s *Store) printUnder(pepper string, ref record.ID, what byte, material []byte) (string, bool) {
	text := append(append([]byte("fob import "), what), ref[:]...)
	text = append(text, material...)
	made, err := s.Peppers.Under(pepper, text)
	if err != nil {
		return "", false
	}
	return string([]byte{what, byte(len(pepper))}) + pepper + string(made[:printLen]), true
}

// printable returns the material for a print of a key, by what the print is made of; nil if
// the material is not known.
func (s *Store) printable(f Key, what byte) []byte {
	switch {
	case f.Secret != "" && what == printSum:
		sum := sha256.Sum256([]byte(f.Secret))
		return sum[:]
	case f.Secret != "" && what == printOwn:
		return s.ownDigest(f.Secret)
	case f.Digest != nil && what == printOwn:
		return f.Digest
	case f.Hash != "":
		h, err := importedhash.Parse(f.Hash)
		sum, plain := h.SHA256()
		plain = plain && f.HashAfter == ""
		if err == nil && plain && what == printSum {
			return sum[:]
		} else if err == nil && !plain && what == printHash {
			return []byte(f.keptHash())
		}
	}
	return nil
}
