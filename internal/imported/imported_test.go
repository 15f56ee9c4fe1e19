package imported_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

const (
	text  = "ab12cd.s3cr3t-of-another-system"
	other = "ab12cd.s3cr3t-of-somebody-else"
)

var (
	errDown = errors.New("the store is down")
	begun   = time.UnixMilli(1_700_000_000_000)
)

// cutStore fails every write after the first few.
type cutStore struct {
	backend.Store
	writes int // that are left
}

func (s *cutStore) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if s.writes--; s.writes < 0 {
		return 0, errDown
	}
	return s.Store.Put(ctx, rec, cond)
}

func ownDigest(presented string) []byte {
	sum := sha256.Sum256([]byte("the other system " + presented))
	return sum[:]
}

func newStore(store backend.Store) *imported.Store {
	all := recordstore.Store{Store: store, Forget: func(...backend.ID) {}}
	c := new(clock.Clock)
	c.Start(func() time.Time { return begun }, time.Hour)
	return &imported.Store{
		Store:   keystate.Store{Store: all, Closed: func() bool { return false }},
		Peppers: pepper.NewKeeper(pepper.KeeperConfig{Store: all, Clock: c, Imported: ownDigest, Problem: func(string, error) {}}),
		Locate: func(presented string) (string, bool) {
			locator, _, ok := strings.Cut(presented, ".")
			return locator, ok
		},
		Digest: ownDigest,
		Text: func(text string) error {
			if len(text) < 8 || len(text) > 64 || strings.Contains(text, " ") {
				return fmt.Errorf("%w: no text of a key", errs.ErrInvalid)
			}
			return nil
		},
		Limiter: importedhash.NewLimiter(2),
	}
}

func newKey(subject string) *keystate.State {
	k := &keystate.State{Status: keystate.Active, Imported: true}
	k.SetOwner(1, "", subject)
	return k
}

func forms(t *testing.T) map[string]imported.Key {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	slow, err := bcrypt.GenerateFromPassword([]byte(text), bcrypt.MinCost)
	require.NoError(t, err)
	return map[string]imported.Key{
		"text":            {Secret: text},
		"text, located":   {Secret: text, Locator: "ab12cd"},
		"hash":            {Hash: hex.EncodeToString(sum[:])},
		"hash, located":   {Hash: hex.EncodeToString(sum[:]), Locator: "ab12cd"},
		"slow hash":       {Hash: string(slow), Locator: "ab12cd"},
		"digest":          {Digest: ownDigest(text)},
		"digest, located": {Digest: ownDigest(text), Locator: "ab12cd"},
	}
}

// found returns the key of a text, the places where it would be, and what was read.
func found(t *testing.T, s *imported.Store, presented string) (k *keystate.State, places []cache.Ref, read []record.ID) {
	t.Helper()
	k, places, err := s.Find(t.Context(), presented, digest.Of([]byte(presented)), func(id record.ID) { read = append(read, id) })
	require.NoError(t, err)
	return k, places, read
}

// Whatever is known of a key, its text finds it, another text does not, and it is imported
// once.
func TestAKeyIsFoundInEveryForm(t *testing.T) {
	for name, known := range forms(t) {
		t.Run(name, func(t *testing.T) {
			s := newStore(memory.New())
			k, places, read := found(t, s, text)
			require.Nil(t, k)
			require.Len(t, places, 3, "by its locator, its SHA-256 and the digest of the other system")
			require.Len(t, read, 3)

			made := newKey("a")
			require.NoError(t, s.Import(t.Context(), made, known, begun))
			require.Equal(t, begun.UnixMilli(), made.IssuedAt)
			require.Contains(t, places, cache.Ref(made.Alias), "who remembers that there is no such key learns of it")
			k, places, read = found(t, s, text)
			require.Equal(t, made, k)
			require.Nil(t, places)
			if known.Secret != "" {
				require.Equal(t, digest.Of([]byte("\x00"+string(k.ID[:])+text)), k.Digest)
			}
			require.Equal(t, []record.ID{made.Alias, made.ID}, read[len(read)-2:])
			k, _, _ = found(t, s, other)
			require.Nil(t, k)

			require.ErrorIs(t, s.Import(t.Context(), newKey("b"), known, begun), errs.ErrAlready)
			require.ErrorIs(t, s.Import(t.Context(), newKey("b"), imported.Key{Secret: text, Locator: "ab12cd"}, begun), errs.ErrAlready)
		})
	}
}

// What was imported with the same locator are different keys.
func TestKeysShareALocator(t *testing.T) {
	s := newStore(memory.New())
	for _, subject := range []string{text, other} {
		require.NoError(t, s.Import(t.Context(), newKey(subject), imported.Key{Secret: subject, Locator: "ab12cd"}, begun))
	}
	for _, subject := range []string{text, other} {
		k, _, _ := found(t, s, subject)
		require.Equal(t, "1"+subject, k.Owner)
	}
	for n := range 6 {
		one := fmt.Sprintf("ab12cd.secret-number-%d", n)
		require.NoError(t, s.Import(t.Context(), newKey("a"), imported.Key{Secret: one, Locator: "ab12cd"}, begun))
	}
	err := s.Import(t.Context(), newKey("a"), imported.Key{Secret: "ab12cd.one-too-many", Locator: "ab12cd"}, begun)
	require.EqualError(t, err, "fob: changed meanwhile: 8 other keys have this locator")
}

// An import has three writes. Until the last one is made the key is not found, and another
// call can begin again.
func TestAnImportThatWasCutOffIsFinishedByAnother(t *testing.T) {
	for name, known := range forms(t) {
		for writes := range 3 {
			store := memory.New()
			cut := newStore(&cutStore{store, writes})
			require.NoError(t, newStore(store).Peppers.VouchImported(t.Context()), "its check value is no write of the import")
			require.ErrorIs(t, cut.Import(t.Context(), newKey("a"), known, begun), errDown, "%s, %d writes", name, writes)
			s := newStore(store)
			k, _, _ := found(t, s, text)
			require.Nil(t, k, "%s, %d writes", name, writes)
			made := newKey("a")
			require.NoError(t, s.Import(t.Context(), made, known, begun.Add(time.Hour)), "%s, %d writes", name, writes)
			k, _, _ = found(t, s, text)
			require.Equal(t, made, k)
		}
	}
}

// A hash of more lanes than there are turns is not computed, and none is called wrong by that.
func TestAHashOfTooManyLanes(t *testing.T) {
	const three = "$argon2id$v=19$m=64,t=1,p=3$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	const told = "fob: invalid argument: a hash of 3 lanes, and Config.Imported.SlowChecks is 2"
	h, err := importedhash.Parse(three)
	require.NoError(t, err)
	s := newStore(memory.New())
	require.EqualError(t, s.CheckLanes(h), told)
	require.NoError(t, s.CheckLanes(importedhash.Hash{}))
	require.NoError(t, s.Import(t.Context(), newKey("a"), imported.Key{Hash: three, Locator: "ab12cd"}, begun))
	_, _, err = s.Find(t.Context(), text, digest.Of([]byte(text)), func(record.ID) {})
	require.EqualError(t, err, told)
	s.Limiter = importedhash.NewLimiter(3)
	require.NoError(t, s.CheckLanes(h))
	k, _, _ := found(t, s, text)
	require.Nil(t, k)
}

// Nothing prints what is known of a key.
func TestNoVerbPrintsAKey(t *testing.T) {
	known := imported.Key{Secret: text, Digest: []byte(text), Locator: "ab12cd"}
	for _, v := range []any{known, &known, struct{ K imported.Key }{known}, []imported.Key{known}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			out := fmt.Sprintf(verb, v)
			require.NotContains(t, out, text, verb)
			require.NotContains(t, out, hex.EncodeToString([]byte(text)), verb)
		}
		out, err := json.Marshal(v)
		require.NoError(t, err)
		require.NotContains(t, string(out), text)
	}
}
