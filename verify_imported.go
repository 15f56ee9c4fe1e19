package fob

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
)

// importedKeys is the form of keys that were made by another system. Their text is found by
// its digest in memory, and in the store by everything that it may have been imported under.
type importedKeys struct{ m *Manager }

// recogniseImported is for a text of no other form.
func (m *Manager) recogniseImported(presented string, text *recognised) error {
	if !m.foreignText(presented) {
		return ErrMalformed
	}
	text.form, text.number, text.memory = importedKeys{m}, formImported, m.keys
	text.hashed = bytesOf(presented)
	return nil
}

const minForeign = 8

// foreignText is the whole grammar of foreign keys: visible ASCII, bounded.
func (m *Manager) foreignText(presented string) bool {
	if len(presented) < minForeign || len(presented) > m.cfg.Foreign.MaxLength {
		return false
	}
	for i := range len(presented) {
		if c := presented[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (importedKeys) check(string) error { return nil }

// Absent implements engine.Loader.
func (importedKeys) Absent(q *query, found *engine.Absence[body]) error {
	return ofSameText(q, found)
}

// Load implements engine.Loader: it looks for the record of an imported key by everything that it may be
// found by, and remembers the answer. What cannot be checked does not keep it from
// looking on: the key may be another one of those that have the locator.
func (f importedKeys) Load(ctx context.Context, q *query) (*answer, error) {
	m := f.m
	forms, own := m.formsOfText(q.Presented, q.Seen[:])
	refs := make([]cache.Ref, 0, cache.MaxRefs)
	var unsure error
	for _, form := range forms {
		for n := range form.room() {
			ref := form.at(n)
			refs = append(refs, cache.Ref(ref))
			k, err := m.keyOfAlias(ctx, ref, &q.Reading)
			if errors.Is(err, ErrNotFound) {
				break
			}
			if err != nil && errs.IsOutage(err) {
				return nil, fmt.Errorf("fob: verify: %w", err)
			}
			matches := false
			if k != nil {
				matches, err = m.matchesForeign(ctx, &k.state, q.Presented, own)
			}
			if matches {
				return m.rememberKey(ctx, q, k)
			}
			unsure = errors.Join(unsure, err)
		}
	}
	if unsure != nil {
		return nil, fmt.Errorf("fob: verify: %w", unsure) // it may be that one
	}
	if len(own) > 0 {
		if err := m.peppers.DoubtForeign(ctx); err != nil {
			return nil, fmt.Errorf("fob: verify: %w", err)
		}
	}
	return nil, m.engine.Refuse(q, engine.Absence[body]{Err: ErrUnknown}, refs...)
}

// keyOfAlias returns the key to which an alias leads, nil if it leads to none now, and
// ErrNotFound if there is no such alias.
func (m *Manager) keyOfAlias(ctx context.Context, ref record.ID, r *engine.Reading) (*Key, error) {
	r.Reads(ref)
	led, err := m.readAlias(ctx, ref)
	if err != nil || led.pending {
		return nil, err
	}
	r.Reads(backend.ID(led.target))
	rec, err := m.store.Get(ctx, backend.ID(led.target))
	if errors.Is(err, backend.ErrNotFound) {
		return nil, nil // purged
	}
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	k, err := decodeKey(&rec)
	if err != nil || !k.state.Imported || k.state.Alias != ref {
		return nil, err
	}
	return k, nil
}

// matchesForeign compares a presented foreign key with what the record holds. A
// slow hash waits for its turn, or fails with ErrBusy.
func (m *Manager) matchesForeign(ctx context.Context, k *keystate.State, presented string, own []byte) (bool, error) {
	if k.ImportedHash == "" {
		made, err := m.peppers.Under(k.Pepper, foreignSecret(k.ID, presented))
		if err != nil {
			return false, err
		}
		return m.peppers.Matches(ctx, k.Pepper, made, k.Digest)
	}
	if text, ok := strings.CutPrefix(k.ImportedHash, ownDigest); ok {
		want, err := hex.DecodeString(text)
		if err != nil || m.cfg.Foreign.Digest == nil {
			return false, fmt.Errorf("%w: imported digest, or no Config.Foreign.Digest", ErrCorrupt)
		}
		return len(own) > 0 && subtle.ConstantTimeCompare(want, own) == 1, nil
	}
	h, err := importedhash.Parse(k.ImportedHash)
	if err != nil {
		return false, fmt.Errorf("%w: imported hash", ErrCorrupt)
	}
	ok, err := m.limiter.Verify(ctx, k.ID, h, presented)
	switch {
	case errors.Is(err, importedhash.ErrBusy):
		return false, ErrBusy
	case errors.Is(err, importedhash.ErrLanes):
		return false, m.tooWide(h)
	}
	return ok, err
}
