package fob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/legacyhash"
)

// ForeignKeys says how keys made by another system are recognised, so that they
// can be imported (ImportKey) and go on working. Their text is parsed on its
// own path: it never makes the native form laxer. The zero ForeignKeys accepts
// imports by raw value and by unsalted SHA-256.
type ForeignKeys struct {
	// Locate returns the public part of a presented key, by which its record is
	// found: the ID or start of a key like "ab12cd.secret". It is needed for
	// salted and slow hashes, which cannot be looked up by. ok is false for text
	// that is no such key. The result must not be secret on its own.
	Locate func(presented string) (locator string, ok bool)
	// Digest is the other system's own digest of a presented key, for records
	// imported by ForeignKey.Digest: keyed with a secret of its own, say. It must
	// be deterministic and hard to invert, and is called for every foreign text
	// that is not in the cache.
	Digest func(presented string) []byte
	// MaxLength bounds a foreign key in bytes, 8 to 4,096; zero means 512.
	MaxLength int
	// SlowChecks bounds how many slow hashes (bcrypt, PBKDF2, argon2id) are
	// computed at once. Some more wait for their turn, the rest get ErrBusy: a
	// flood of wrong keys costs this many cores, never all. Zero means half of
	// GOMAXPROCS, at least 1.
	SlowChecks int
}

// ForeignKey is what is known of a key made by another system. Set exactly one
// of Secret, Hash and Digest.
type ForeignKey struct {
	// Secret is the key itself. See Locator for what the store then keeps.
	Secret string
	// Hash is the other system's hash of it: SHA-256 in hex; or "$sha512$…",
	// bcrypt, PBKDF2 or argon2id in the forms that the guide for imports lists.
	// It is verified once, at the first use, and then replaced by the digest made
	// here.
	Hash string
	// Digest is what ForeignKeys.Digest returns for it, 16 to 64 bytes.
	Digest []byte
	// Locator is what ForeignKeys.Locate returns for it. Required for a Hash that
	// is salted, else optional: without it the key is found by its SHA-256 (or Digest),
	// under no pepper. Whoever has a copy of the store can then check guesses of a weak
	// secret: give a Locator where there is one, and rotate the others.
	Locator string
}

// Format writes nothing of the key, for every verb.
func (ForeignKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns a redaction; JSON uses it too.
func (ForeignKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a redaction.
func (ForeignKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// ImportKey makes a key of another system valid here: its text stays the same,
// everything else is as if it had been issued here. Prefix and IdempotencyKey
// of spec must be empty. A key that was imported already is ErrConflict; an
// import that failed or was cut off can be called again.
func (m *Manager) ImportKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*Key, error) {
	k, err := m.importKey(ctx, spec, foreign)
	if err != nil {
		return nil, fmt.Errorf("fob: import key: %w", err)
	}
	m.observe(Event{Type: EventImported, ID: k.id, Subject: k.subject})
	return k, nil
}

func (m *Manager) importKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*Key, error) {
	if m.closed.Load() {
		return nil, ErrClosed
	}
	if m.cfg.Foreign == nil {
		return nil, fmt.Errorf("%w: Config.Foreign is not set", ErrInvalid)
	}
	if spec.Prefix != "" || spec.IdempotencyKey != "" {
		return nil, fmt.Errorf("%w: Prefix and IdempotencyKey are for keys issued here", ErrInvalid)
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return nil, err
	}
	k.prefix, k.foreign = "", true
	if k.alias, err = m.foreignAlias(foreign); err != nil {
		return nil, err
	}
	if k.epoch, _, err = m.readEpoch(ctx, k.subjectRef); err != nil {
		return nil, storeError("read", err)
	}
	// The alias first, the key second: until the key is there the alias leads
	// nowhere, and a repeat fills the ID that the alias names.
	k.id = ID(keytext.NewID(now))
	rec := backend.Record{ID: k.alias, Kind: recordAlias, Owner: owner(k.subjectKind, k.subject), Created: k.issuedAt}
	w := newBody()
	w.id(fieldTarget, k.id)
	w.seal(&rec)
	_, err = m.create(ctx, rec)
	if errors.Is(err, ErrConflict) {
		k.id, err = m.readAlias(ctx, k.alias)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case foreign.Secret != "":
		m.digest(k, foreignSecret(k.id, foreign.Secret))
	case foreign.Hash != "":
		k.legacy = foreign.Hash
	default:
		k.legacy = ownDigest + hex.EncodeToString(foreign.Digest)
	}
	if k.version, err = m.create(ctx, encodeKey(k, m.purgeAt(k))); err != nil {
		return nil, err
	}
	return k, nil
}

// ownDigest marks a legacy hash that Config.Foreign.Digest can compute.
const ownDigest = "own:"

// foreignSecret is what the native digest of an imported key is made over. The
// first byte is no version of the native text, so the two can never be equal.
func foreignSecret(id ID, presented string) []byte {
	return append(append([]byte{0}, id[:]...), presented...)
}

// foreignAlias checks what is imported and returns the record to find it by.
func (m *Manager) foreignAlias(f ForeignKey) (recordID, error) {
	given := 0
	for _, set := range []bool{f.Secret != "", f.Hash != "", f.Digest != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return recordID{}, fmt.Errorf("%w: want one of Secret, Hash and Digest", ErrInvalid)
	}
	if err := checkText("locator", f.Locator, 0, maxSubject); err != nil {
		return recordID{}, err
	}
	if f.Locator != "" && m.cfg.Foreign.Locate == nil {
		return recordID{}, fmt.Errorf("%w: a Locator without Config.Foreign.Locate", ErrInvalid)
	}
	switch {
	case f.Secret != "":
		if !m.foreignText(f.Secret) {
			return recordID{}, fmt.Errorf("%w: the key is not %d to %d visible ASCII characters", ErrInvalid, minForeign, m.cfg.Foreign.MaxLength)
		}
		if prefix, problem := keytext.Split(f.Secret); problem == keytext.OK && m.known(prefix) {
			return recordID{}, fmt.Errorf("%w: the key has the native form", ErrInvalid)
		}
		if f.Locator != "" {
			if found, ok := m.cfg.Foreign.Locate(f.Secret); !ok || found != f.Locator {
				return recordID{}, fmt.Errorf("%w: Config.Foreign.Locate does not find this Locator in the key", ErrInvalid)
			}
			break
		}
		sum := sha256.Sum256([]byte(f.Secret))
		return aliasOfSum(sum[:]), nil
	case f.Hash != "":
		h, err := legacyhash.Parse(f.Hash)
		if err != nil {
			return recordID{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if f.Locator != "" {
			break
		}
		sum, ok := h.SHA256()
		if !ok {
			return recordID{}, fmt.Errorf("%w: a salted hash needs a Locator", ErrInvalid)
		}
		return aliasOfSum(sum[:]), nil
	default:
		if m.cfg.Foreign.Digest == nil || len(f.Digest) < 16 || len(f.Digest) > 64 {
			return recordID{}, fmt.Errorf("%w: want Config.Foreign.Digest, and a Digest of 16 to 64 bytes", ErrInvalid)
		}
		if f.Locator == "" {
			return aliasOfDigest(f.Digest), nil
		}
	}
	return aliasOfLocator(f.Locator), nil
}

func aliasOfLocator(locator string) recordID { return namedRecord(recordAlias, "locator", locator) }
func aliasOfSum(sum []byte) recordID         { return namedRecord(recordAlias, "sha256", string(sum)) }
func aliasOfDigest(d []byte) recordID        { return namedRecord(recordAlias, "digest", string(d)) }

func (m *Manager) readAlias(ctx context.Context, ref recordID) (ID, error) {
	rec, err := m.store.Get(ctx, ref)
	if err != nil {
		return ID{}, storeError("read", err)
	}
	r, err := openBody(&rec, recordAlias)
	if err != nil {
		return ID{}, err
	}
	field, v, ok := r.next()
	id := ID(r.id(v))
	if !ok || field != fieldTarget || r.bad || r.rest != "" {
		return ID{}, corrupt(&rec, "fields")
	}
	return id, nil
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

// known reports whether prefix is any of ours, of this environment or another.
func (m *Manager) known(prefix string) bool {
	for i := range m.prefixes {
		if m.prefixes[i].text == prefix {
			return true
		}
	}
	return false
}

// verifyForeign is Verify for text that is no native key.
func (m *Manager) verifyForeign(ctx context.Context, presented string, how demand) (Credential, error) {
	if !m.foreignText(presented) {
		return nil, ErrMalformed
	}
	now := m.moment()
	seen, at := seenText([]byte(presented))
	e, ok := m.answers.keys.Get(at, now.mono)
	ok = ok && e.form == foreignForm && e.seen.Equal(seen)
	if ok && how == cached && m.believed(atomic.LoadInt64(&e.asOf), now) {
		return m.hit(e, now)
	}
	q := query{how: how, now: now, form: foreignForm, presented: presented, seen: seen, at: at}
	if ok {
		q.oldKey = e
	}
	return m.findOut(ctx, &q)
}

// loadForeign looks for the record of an imported key by everything that it may be
// found by, and remembers the answer.
func (m *Manager) loadForeign(ctx context.Context, q *query) found {
	// Before any store is asked: an entry put below depends on what is read after.
	ticket, absent := m.answers.keys.Begin(), m.answers.absent.Begin()
	var aliases []recordID
	var own []byte
	if locate := m.cfg.Foreign.Locate; locate != nil {
		if locator, ok := locate(strings.Clone(q.presented)); ok && locator != "" {
			aliases = append(aliases, aliasOfLocator(locator))
		}
	}
	aliases = append(aliases, aliasOfSum(q.seen.sum[:]))
	if digest := m.cfg.Foreign.Digest; digest != nil {
		own = digest(strings.Clone(q.presented))
		aliases = append(aliases, aliasOfDigest(own))
	}
	refs := make([]cache.Ref, 0, cache.MaxRefs)
	for _, alias := range aliases {
		refs = append(refs, cache.Ref(alias))
		id, err := m.readAlias(ctx, alias)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		refs = append(refs, cache.Ref(id))
		rec, err := m.store.Get(ctx, backend.ID(id))
		if errors.Is(err, backend.ErrNotFound) {
			continue // an import that did not finish, or a purged key
		}
		if err != nil {
			return found{err: checkError(err)}
		}
		k, err := decodeKey(&rec)
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		matches, err := m.matchesForeign(ctx, k, q.presented, own)
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		if !matches || !k.foreign || k.alias != alias {
			continue
		}
		return m.remember(ctx, q, ticket, k)
	}
	return m.refuse(q, absent, absence{seen: q.seen}, refs...)
}

// matchesForeign compares a presented foreign key with what the record holds. A
// slow hash waits for its turn, or fails with ErrBusy.
func (m *Manager) matchesForeign(ctx context.Context, k *Key, presented string, own []byte) (bool, error) {
	if k.legacy == "" {
		secret := foreignSecret(k.id, presented)
		digest := digestOf(secret)
		if k.pepper != "" {
			pepper, ok := m.peppers[k.pepper]
			if !ok {
				return false, fmt.Errorf("%w: %q", ErrPepper, k.pepper)
			}
			digest = pepperedDigest(pepper, secret)
		}
		return digest.Equal(k.digest), nil
	}
	if text, ok := strings.CutPrefix(k.legacy, ownDigest); ok {
		want, err := hex.DecodeString(text)
		if err != nil || own == nil {
			return false, fmt.Errorf("%w: imported digest, or no Config.Foreign.Digest", ErrCorrupt)
		}
		return digestOf(want).Equal(digestOf(own)), nil
	}
	h, err := legacyhash.Parse(k.legacy)
	if err != nil {
		return false, fmt.Errorf("%w: imported hash", ErrCorrupt)
	}
	ok, err := m.limiter.Verify(ctx, h, presented)
	if errors.Is(err, legacyhash.ErrBusy) {
		return false, ErrBusy
	}
	return ok, err
}
