package imported

import (
	"fmt"
	"strings"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/limits"
)

const (
	maxLocator = 256
	minDigest  = 16 // bytes of Key.Digest
	maxDigest  = 64
	// maxProbe is how long the secret part of a text is at most that checkHashAfter tries.
	maxProbe = 256
)

// Check fails with errs.ErrInvalid for a key that can never be verified, as far as that can
// be found out without its text. It returns the key as it is imported: its hash is in the
// spelling of importedhash.
func (s *Store) Check(f Key) (Key, error) {
	given := 0
	for _, set := range []bool{f.Secret != "", f.Hash != "", f.Digest != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return f, invalid("want one of Secret, Hash and Digest")
	}
	if err := limits.CheckText("locator", f.Locator, 0, maxLocator); err != nil {
		return f, err
	}
	if f.Locator != "" && s.Locate == nil {
		return f, invalid("a Locator without Config.Imported.Locate")
	}
	if f.HashAfter != "" && f.Hash == "" {
		return f, invalid("a HashAfter without a Hash")
	}
	switch {
	case f.Secret != "":
		return f, s.checkSecret(f)
	case f.Hash != "":
		return s.checkHash(f)
	case s.Digest == nil || len(f.Digest) < minDigest || len(f.Digest) > maxDigest:
		return f, invalid("want Config.Imported.Digest, and a Digest of %d to %d bytes", minDigest, maxDigest)
	}
	return f, nil
}

func (s *Store) checkSecret(f Key) error {
	if err := s.Text(f.Secret); err != nil {
		return err
	}
	if f.Locator != "" && !s.locates(f.Secret, f.Locator) {
		return invalid("Config.Imported.Locate does not find this Locator in the key")
	}
	return nil
}

func (s *Store) checkHash(f Key) (Key, error) {
	h, err := importedhash.Parse(f.Hash)
	if err != nil {
		return f, invalid("%w", err)
	}
	if _, found := h.SHA256(); f.Locator == "" && (!found || f.HashAfter != "") {
		return f, invalid("a key is found by its hash only if that is SHA-256 over the whole key, without a salt: " +
			"give a Locator, or compute the hash in Config.Imported.Digest")
	}
	if f.HashAfter != "" {
		if err := s.checkHashAfter(f); err != nil {
			return f, err
		}
	}
	if err := s.CheckLanes(h); err != nil {
		return f, err
	}
	if err := h.Usable(); err != nil {
		return f, invalid("%w", err)
	}
	f.Hash = h.Text()
	return f, nil
}

// checkHashAfter checks that there can be a key that begins with HashAfter and has the
// Locator. The key itself is not known. So the check tries texts in which a run of zeros
// stands for the secret, one of each length, and the locator in each place where it may
// be. One of them must be taken for a key, by Text, and Locate must find the Locator in it.
func (s *Store) checkHashAfter(f Key) error {
	zeros := strings.Repeat("0", maxProbe)
	for n := 1; n <= maxProbe; n++ {
		for _, text := range []string{
			f.HashAfter + zeros[:n], f.HashAfter + f.Locator + zeros[:n], f.HashAfter + zeros[:n] + f.Locator, f.Locator + zeros[:n],
		} {
			if strings.HasPrefix(text, f.HashAfter) && s.Text(text) == nil && s.locates(text, f.Locator) {
				return nil
			}
		}
	}
	if err := s.Text(f.HashAfter + zeros[:minDigest]); err != nil {
		return err
	}
	return invalid("Config.Imported.Locate does not find this Locator in a key that begins with HashAfter: " +
		"HashAfter is all of the key that stands before the part that was hashed, with the separator (\"k7f2.\" for k7f2.SECRET), " +
		"and Locate must not ask for more of the secret than its length")
}

func (s *Store) locates(text, locator string) bool {
	found, ok := s.Locate(strings.Clone(text))
	return ok && found == locator
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errs.ErrInvalid, fmt.Errorf(format, args...))
}
