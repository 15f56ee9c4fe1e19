package fob

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
)

// ImportedKeys says how keys made by another system are recognised, so that they can be
// imported ([Manager.ImportKey]) and go on working. Their text is parsed apart from that
// of native keys, whose form never becomes laxer by it. The zero ImportedKeys accepts
// imports by raw value and by unsalted SHA-256.
type ImportedKeys struct {
	// Locate returns the locator of a presented key: the public part by which its record
	// is found, such as the ID or start of a key like "ab12cd.secret". It is needed for
	// salted and slow hashes, by which no record can be found. ok is false for text that
	// is no such key. The locator must not be secret on its own.
	Locate func(presented string) (locator string, ok bool)
	// Digest is the other system's own digest of a presented key, for records imported by
	// ImportedKey.Digest. It may be keyed with a secret of that system, must be
	// deterministic and hard to invert, and is called for every text of no other form that
	// is not in the cache. If Digest is nil or returns nothing, the text is no key of that
	// system: it matches no imported digest.
	Digest func(presented string) []byte
	// MaxLength bounds an imported key in bytes, 8 to 4,096; zero means 512.
	MaxLength int
	// SlowChecks bounds how many slow hashes (bcrypt, PBKDF2, argon2id) are computed at
	// once: a flood of wrong keys takes this many cores, never all. Some more wait for
	// their turn, the rest get ErrBusy. For one key only one hash is computed at a time,
	// and no other one waits, so that a flood on one locator does not shut out the others.
	// An argon2id hash counts as many times as it has lanes (p), because it runs on so
	// many cores. One with more lanes than SlowChecks is not imported (ErrInvalid); if a
	// Manager with a larger bound has imported it, its check fails here with an error that
	// is no rejection. Zero means half of GOMAXPROCS, at least 1.
	SlowChecks int
}

// ImportedKey is what is known of a key made by another system. Set exactly one
// of Secret, Hash and Digest.
type ImportedKey struct {
	// Secret is the key itself. See Locator for what the store then keeps.
	Secret string
	// Hash is the other system's hash of the key: SHA-256 or SHA-512 with or without a
	// salt, bcrypt, PBKDF2 or argon2id, in one of the forms that the guide for imports
	// lists. The error for any other text says what to write instead. The hash is verified
	// once, at the first use, and then replaced by the digest made here.
	Hash string
	// HashAfter is set if Hash was made over a part of the key only: it is all that stands
	// before that part, with the separator. For the key "k7f2.SECRET", of which SECRET was
	// hashed, it is "k7f2.". Only a text that begins with it, byte by byte, can be the key.
	// It requires a Locator.
	HashAfter string
	// Digest is what ImportedKeys.Digest returns for the key, 16 to 64 bytes.
	Digest []byte
	// Locator is what ImportedKeys.Locate returns for the key. A Hash requires it, unless it
	// is SHA-256 over the whole key, without a salt. Otherwise it is optional: without it
	// the key is found by its SHA-256 (or Digest), which is stored under no pepper. Then
	// whoever has a copy of the store can check guesses of a weak secret: give a Locator
	// if there is one, and rotate the other keys.
	Locator string
	// Another says that this is another key than those that were imported with the same
	// Locator before. It is needed only if that cannot be told: two salted hashes may be
	// of one key, hashed twice. A key that is imported twice has two records, and has to
	// be revoked twice.
	Another bool
}

// Format writes nothing of the key, for every verb.
func (ImportedKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String returns a redaction.
func (ImportedKey) String() string { return redacted }

// MarshalBinary fails, because it would write the key.
func (ImportedKey) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// MarshalText returns a redaction; JSON, XML and YAML use it too.
func (ImportedKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a redaction.
func (ImportedKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// ImportKey makes a key of another system valid here: its text stays the same, everything
// else is as if it had been issued here. Prefix and IdempotencyKey of spec must be empty.
//
// A key that was imported before is ErrAlready. That includes an import in another form,
// as far as the two can be recognised as one key (nobody knows the locator of a Hash
// without Locator). It holds for good, even if the key was revoked or has expired and its
// record was purged. So if several processes import one key at the same time, one gets
// nil, and the others get ErrAlready once that import is done. An import that failed or
// was cut off can be called again; the key is not accepted until one import has finished.
// The error is ErrConflict if an unfinished import was for another subject, or if
// somebody has revoked or disabled the key that it left.
//
// Up to eight keys can have one Locator. A further key is imported beside them; if it
// cannot be told whether it is one of them, that is ErrConflict (see ImportedKey.Another).
func (m *Manager) ImportKey(ctx context.Context, spec KeySpec, given ImportedKey) (*Key, error) {
	asOf := clock.Millis(m.now())
	k, err := m.importKey(ctx, spec, given)
	if err != nil {
		m.observeOutcome(ctx, Event{Type: EventImported, Subject: spec.Subject}, err)
		return nil, fmt.Errorf("fob: import key: %w", err)
	}
	key := m.keyOf(k, asOf)
	m.observe(ctx, Event{Type: EventImported, ID: key.ID(), Subject: key.Subject(), After: key})
	return key, nil
}

func (m *Manager) importKey(ctx context.Context, spec KeySpec, given ImportedKey) (*keystate.State, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	if m.cfg.Imported == nil {
		return nil, fmt.Errorf("%w: Config.Imported is not set", ErrInvalid)
	}
	if spec.Prefix != "" || spec.IdempotencyKey != "" {
		return nil, fmt.Errorf("%w: Prefix and IdempotencyKey are for keys issued here", ErrInvalid)
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return nil, err
	}
	k.Prefix, k.Imported = "", true
	known, err := m.imported.Check(imported.Key(given))
	if err != nil {
		return nil, err
	}
	k.Parent = record.ID{} // an import can be repeated by whoever finishes it
	if k.Epoch, k.AccountEpoch, err = m.stamp(ctx, k.SubjectRef, k.AccountRef); err != nil {
		return nil, errs.OfStore("read", err)
	}
	if err := m.imported.Import(ctx, k, known, now); err != nil {
		return nil, err
	}
	return k, nil
}

// checkImportedText fails for a text that is not looked up as that of an imported key.
func (m *Manager) checkImportedText(text string) error {
	if !m.importedText(text) {
		return fmt.Errorf("%w: the key is not %d to %d visible ASCII characters", ErrInvalid, minImported, m.cfg.Imported.MaxLength)
	}
	if prefix, problem := keytext.Split(text); problem == keytext.OK && m.hasPrefix(prefix) {
		return fmt.Errorf("%w: the key has the native form", ErrInvalid)
	}
	if m.tokens != nil && isToken(text) {
		return fmt.Errorf("%w: the key begins as a token does, and would be taken for one", ErrInvalid)
	}
	return nil
}
