package imported

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
)

// Find looks for the key of a presented text by every property that the key may be found
// by, and compares the text with it. sum is the SHA-256 of the text. reads is called for
// each record before it is read. If there is no such key, k is nil without an error, and
// places are the aliases that the key could have: an import of the key would write one of
// them.
//
// If a key cannot be compared with the text, Find goes on, because another key with the
// same locator may be the right one. If none is, the key that could not be compared may
// have been the right one, and the error says so. errs.ErrBusy means that too many slow
// hashes wait.
func (s *Store) Find(ctx context.Context, presented string, sum digest.Digest, reads func(record.ID)) (k *keystate.State, places []cache.Ref, err error) {
	forms, own := s.formsOfText(presented, sum[:])
	places = make([]cache.Ref, 0, cache.MaxRefs)
	var unsure error
	for _, form := range forms {
		for n := range form.room() {
			ref := form.at(n)
			places = append(places, cache.Ref(ref))
			k, err := s.keyOfAlias(ctx, ref, reads)
			if errors.Is(err, errs.ErrNotFound) {
				break
			}
			if err != nil && errs.IsOutage(err) {
				return nil, nil, err
			}
			matches := false
			if k != nil {
				matches, err = s.matches(ctx, k, presented, own)
			}
			if matches {
				return k, nil, nil
			}
			unsure = errors.Join(unsure, err)
		}
	}
	if unsure != nil {
		return nil, nil, unsure // the text may be of a key that could not be compared
	}
	if len(own) > 0 {
		if err := s.Peppers.DoubtImported(ctx); err != nil {
			return nil, nil, err
		}
	}
	return nil, places, nil
}

// keyOfAlias returns the key to which an alias leads, nil if it leads to none at present,
// and errs.ErrNotFound if there is no such alias.
func (s *Store) keyOfAlias(ctx context.Context, ref record.ID, reads func(record.ID)) (*keystate.State, error) {
	reads(ref)
	led, err := s.readAlias(ctx, ref)
	if err != nil || led.pending {
		return nil, err
	}
	reads(led.target)
	rec, err := s.Get(ctx, led.target)
	if errors.Is(err, backend.ErrNotFound) {
		return nil, nil // purged
	}
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	k := new(keystate.State)
	if err := keystate.Decode(&rec, k); err != nil || !k.Imported || k.Alias != ref {
		return nil, err
	}
	return k, nil
}

// matches compares a presented text, and the other system's own digest of it, with the
// record of a key. A slow hash waits for its turn, or fails with errs.ErrBusy.
func (s *Store) matches(ctx context.Context, k *keystate.State, presented string, own []byte) (bool, error) {
	if k.ImportedHash == "" {
		made, err := s.Peppers.Under(k.Pepper, Material(k.ID, presented))
		if err != nil {
			return false, err
		}
		return s.Peppers.Matches(ctx, k.Pepper, made, k.Digest)
	}
	if text, ok := strings.CutPrefix(k.ImportedHash, ownMark); ok {
		want, err := hex.DecodeString(text)
		if err != nil || s.Digest == nil {
			return false, fmt.Errorf("%w: imported digest, or no Config.Imported.Digest", errs.ErrCorrupt)
		}
		return len(own) > 0 && subtle.ConstantTimeCompare(want, own) == 1, nil
	}
	hash, part, fits := hashedPart(k.ImportedHash, presented)
	h, err := importedhash.Parse(hash)
	if err != nil {
		return false, fmt.Errorf("%w: imported hash", errs.ErrCorrupt)
	}
	if !fits {
		return false, nil
	}
	ok, err := s.Limiter.Verify(ctx, k.ID, h, part)
	switch {
	case errors.Is(err, importedhash.ErrBusy):
		return false, errs.ErrBusy
	case errors.Is(err, importedhash.ErrLanes):
		return false, s.CheckLanes(h)
	}
	return ok, err
}
