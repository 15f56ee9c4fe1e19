package imported

import (
	"context"
	"crypto/sha256"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/record"
)

// alias leads from the text of an imported key to its record.
type alias struct {
	target  record.ID
	pending bool   // the import has not finished
	print   string // of what was imported; see printUnder
	rec     backend.Record
	cond    backend.Cond // that it is still as it was read
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

// What a print is of. The numbers are stored.
const (
	printSum  = 1 + iota // SHA-256 of the key
	printHash            // a salted or slow hash of it, as text
	printOwn             // Store.Digest of it
)

// printLen is how much of the digest is kept, in bytes: enough that no two keys meet.
const printLen = 16

// printUnder is the print of an import: what it is of, the pepper and a digest under
// it. It is kept as long as the alias, so that a key which is imported once more is
// recognised although its record was rehashed or purged, and another one with the same
// locator is told from it. Without the pepper it serves to check no guess.
func (s *Store) printUnder(pepper string, ref record.ID, what byte, material []byte) (string, bool) {
	text := append(append([]byte("fob import "), what), ref[:]...)
	text = append(text, material...)
	made, err := s.Peppers.Under(pepper, text)
	if err != nil {
		return "", false
	}
	return string([]byte{what, byte(len(pepper))}) + pepper + string(made[:printLen]), true
}

// printable is what of a key a print can be made of, by what it is then of.
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
		if sum, plain := h.SHA256(); err == nil && plain && what == printSum {
			return sum[:]
		} else if err == nil && !plain && what == printHash {
			return []byte(f.Hash)
		}
	}
	return nil
}
