package imported

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/record"
)

// maxSharing is how many keys can have one locator. A text with that locator is compared
// with each of them until one matches. So maxSharing bounds how many reads and slow hashes
// a wrong text costs.
const maxSharing = 8

// aliasOfLocator returns the ID of the alias of the key that was imported as number n+1
// with a locator. Aliases are never purged, so after the first ID without an alias there
// are no more.
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

// form is one way in which a key may be found: by its locator, under one of several IDs, or
// by a digest that no other key has.
type form struct {
	locator string
	ref     record.ID // the ID of the alias, if there is no locator
	wanted  bool      // the key is to be imported in this form now
}

// room is how many IDs an alias of this form may have.
func (f *form) room() int {
	if f.locator != "" {
		return maxSharing
	}
	return 1
}

// at is the ID of the alias number n of this form.
func (f *form) at(n int) record.ID {
	if f.locator != "" {
		return aliasOfLocator(f.locator, n)
	}
	return f.ref
}

// formsOfText returns every form in which the key of a presented text may be found, and the
// other system's own digest of the text, if there is one. sum is the SHA-256 of the text.
func (s *Store) formsOfText(presented string, sum []byte) (forms []form, own []byte) {
	if s.Locate != nil {
		if locator, ok := s.Locate(strings.Clone(presented)); ok && locator != "" {
			forms = append(forms, form{locator: locator})
		}
	}
	forms = append(forms, form{ref: aliasOfSum(sum)})
	if own = s.ownDigest(presented); len(own) > 0 {
		forms = append(forms, form{ref: aliasOfDigest(own)})
	}
	return forms, own
}

// formsOf returns the forms in which a key may have been imported, as far as they follow
// from what is known of the key, in the order of formsOfText.
func (s *Store) formsOf(f Key) []form {
	var all []form
	if f.Locator != "" {
		all = append(all, form{locator: f.Locator, wanted: true})
	}
	var ref record.ID
	switch {
	case f.Secret != "":
		sum := sha256.Sum256([]byte(f.Secret))
		all, _ = s.formsOfText(f.Secret, sum[:]) // if f has a locator, Locate returns the same one
		ref = aliasOfSum(sum[:])
	case f.Hash != "":
		h, err := importedhash.Parse(f.Hash)
		sum, plain := h.SHA256()
		if err != nil || !plain || f.HashAfter != "" {
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
