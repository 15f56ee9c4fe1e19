package imported

import (
	"crypto/sha256"
	"strconv"
	"strings"

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

// formsOf returns the forms in which a key may have been imported,
// as far as they can be told from what is known of it, in the order of formsOfText.
func (s *Store) formsOf(f Key) []form {
	var all []form
	if f.Locator != "" {
		all = append(all, form{locator: f.Locator, wanted: true})
	}
	var ref record.ID
	switch {
	case f.Secret != "":
		sum := sha256.Sum256([]byte(f.Secret))
		all, _ = s.formsOfText(f.Secret, sum[:]) // its locator is f's, if f has one
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
