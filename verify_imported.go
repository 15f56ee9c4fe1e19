package fob

import (
	"context"
	"fmt"

	"github.com/fobkit/fob/internal/engine"
)

// importedKeys is the form of keys that were made by another system. The cache finds
// their text by its digest, the store by every ID under which it may have been imported.
type importedKeys struct{ m *Manager }

// recogniseImported recognises a text of no other form as one that may be an imported
// key.
func (m *Manager) recogniseImported(presented string, text *recognised) error {
	if !m.importedText(presented) {
		return ErrMalformed
	}
	text.form, text.number, text.memory = importedKeys{m}, formImported, m.keys
	text.hashed = bytesOf(presented)
	return nil
}

const minImported = 8

// importedText is the whole grammar of imported keys: visible ASCII, bounded.
func (m *Manager) importedText(presented string) bool {
	if len(presented) < minImported || len(presented) > m.cfg.Imported.MaxLength {
		return false
	}
	for i := range len(presented) {
		if c := presented[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// Absent implements engine.Loader.
func (importedKeys) Absent(q *lookup, found *engine.Absence[body]) error {
	return ofSameText(q, found)
}

// Load implements engine.Loader: it finds the key of the text in the store, and caches
// it.
func (f importedKeys) Load(ctx context.Context, q *lookup) (*answer, error) {
	m := f.m
	k, places, err := m.imported.Find(ctx, q.Presented, q.Seen, q.Reads)
	switch {
	case err != nil:
		return nil, fmt.Errorf("fob: verify: %w", err)
	case k != nil:
		return m.rememberKey(ctx, q, m.keyOf(k, 0))
	}
	return nil, m.engine.Refuse(q, engine.Absence[body]{Err: ErrUnknown}, places...)
}
