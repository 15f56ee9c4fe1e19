package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/record"
)

// maxSharing is how many keys can have one locator. A text with that locator is
// compared with each of them until one fits: so many reads, and so many slow hashes
// at most, does a wrong one cost.
const maxSharing = 8

// aliasOfLocator is the place of the key that was imported as number n+1 with a
// locator. Aliases are never purged, so the first place that is empty is the last.
func aliasOfLocator(locator string, n int) record.ID {
	if n == 0 {
		return record.Named(record.Alias, "locator", locator)
	}
	return record.Named(record.Alias, "locator", locator, strconv.Itoa(n))
}

func aliasOfSum(sum []byte) record.ID { return record.Named(record.Alias, "sha256", string(sum)) }
func aliasOfDigest(d []byte) record.ID {
	return record.Named(record.Alias, "digest", string(d))
}

// form is one way in which a key may be found: by its locator, at one of several
// places, or by a digest that is its own.
type form struct {
	locator string
	ref     record.ID // without a locator
	wanted  bool      // in which the key is to be imported now
}

func (f *form) room() int {
	if f.locator != "" {
		return maxSharing
	}
	return 1
}

func (f *form) at(n int) record.ID {
	if f.locator != "" {
		return aliasOfLocator(f.locator, n)
	}
	return f.ref
}

// formsOfText returns every form in which a presented text may be found, and its
// digest of the other system, if there is one. sum is its SHA-256.
func (m *Manager) formsOfText(presented string, sum []byte) (forms []form, own []byte) {
	if locate := m.cfg.Foreign.Locate; locate != nil {
		if locator, ok := locate(strings.Clone(presented)); ok && locator != "" {
			forms = append(forms, form{locator: locator})
		}
	}
	forms = append(forms, form{ref: aliasOfSum(sum)})
	if digest := m.cfg.Foreign.Digest; digest != nil {
		if own = digest(strings.Clone(presented)); len(own) > 0 {
			forms = append(forms, form{ref: aliasOfDigest(own)})
		}
	}
	return forms, own
}

// formsOf returns the forms in which a key that was checked may have been imported,
// as far as they can be told from what is known of it, in the order of formsOfText.
func (m *Manager) formsOf(f ForeignKey) []form {
	var all []form
	if f.Locator != "" {
		all = append(all, form{locator: f.Locator, wanted: true})
	}
	var ref record.ID
	switch {
	case f.Secret != "":
		sum := sha256.Sum256([]byte(f.Secret))
		all, _ = m.formsOfText(f.Secret, sum[:]) // its locator is f's, if f has one
		ref = aliasOfSum(sum[:])
	case f.Hash != "":
		h, err := importedhash.Parse(f.Hash)
		sum, plain := h.SHA256()
		if err != nil || !plain {
			return all
		}
		ref = aliasOfSum(sum[:])
		all = append(all, form{ref: ref})
	default:
		ref = aliasOfDigest(f.Digest)
		all = append(all, form{ref: ref})
	}
	for n := range all {
		all[n].wanted = all[n].locator != "" && f.Locator != "" || all[n].ref == ref && f.Locator == ""
	}
	return all
}

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
	w.Seal(&rec)
	return rec
}

func (m *Manager) readAlias(ctx context.Context, ref record.ID) (*alias, error) {
	rec, err := m.store.Get(ctx, ref)
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
	printOwn             // Config.Foreign.Digest of it
)

// printLen is how much of the digest is kept, in bytes: enough that no two keys meet.
const printLen = 16

// printUnder is the print of an import: what it is of, the pepper and a digest under
// it. It is kept as long as the alias, so that a key which is imported once more is
// recognised although its record was rehashed or purged, and another one with the same
// locator is told from it. Without the pepper it serves to check no guess.
func (m *Manager) printUnder(pepper string, ref record.ID, what byte, material []byte) (string, bool) {
	text := append(append([]byte("fob import "), what), ref[:]...)
	text = append(text, material...)
	made, err := m.peppers.Under(pepper, text)
	if err != nil {
		return "", false
	}
	return string([]byte{what, byte(len(pepper))}) + pepper + string(made[:printLen]), true
}

// material is what of a key a print can be made of, by what it is then of.
func (m *Manager) material(f ForeignKey, what byte) []byte {
	switch {
	case f.Secret != "" && what == printSum:
		sum := sha256.Sum256([]byte(f.Secret))
		return sum[:]
	case f.Secret != "" && what == printOwn && m.cfg.Foreign.Digest != nil:
		return m.cfg.Foreign.Digest(strings.Clone(f.Secret))
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

// printFor returns the print of what is imported now, for an alias.
func (i *importing) printFor(ref record.ID) string {
	for _, what := range []byte{printSum, printHash, printOwn} {
		if material := i.m.material(i.foreign, what); material != nil {
			made, _ := i.m.printUnder(i.m.peppers.Active(), ref, what, material)
			return made
		}
	}
	return ""
}

// isOf reports whether the alias of a locator is of the key that is imported. Where
// that cannot be told it fails with ErrConflict, unless the caller says that it is
// not.
func (i *importing) isOf(ctx context.Context, led *alias) (bool, error) {
	m := i.m
	if led.print != "" {
		what := led.print[0]
		pepper := led.print[2 : len(led.print)-printLen]
		if material := m.material(i.foreign, what); material != nil {
			if own, ok := m.printUnder(pepper, led.rec.ID, what, material); ok && own == led.print {
				return true, nil
			} else if ok && what != printHash {
				return false, m.peppers.Doubt(ctx, pepper)
			}
		}
	}
	k, err := m.keystore.Read(ctx, led.target)
	switch {
	case errors.Is(err, ErrNotFound) && led.pending:
		return true, nil // nothing is there but the place
	case err != nil && !errors.Is(err, ErrNotFound):
		return false, err
	case led.pending && led.print == "":
		return true, nil // made before there were prints
	case err == nil && i.foreign.Secret != "":
		var own []byte
		if m.cfg.Foreign.Digest != nil {
			own = m.cfg.Foreign.Digest(strings.Clone(i.foreign.Secret))
		}
		return m.matchesForeign(ctx, k, i.foreign.Secret, own)
	case i.foreign.Another:
		return false, nil
	}
	return false, fmt.Errorf("%w: another key has this locator, or this one has it in another form", ErrConflict)
}
