package guides_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// row is a row of the table that you have.
type row struct {
	Tenant, Owner, Name string
	Lookup              string // the part of the key before the dot, by which it is found
	Hash                string // of the part after the dot
	Scopes              string
}

func openMovingIn(store backend.Store) (*fob.Manager, error) {
	return fob.New(store, fob.Config{
		Prefix: "acme_live", // of the keys that are made from now on
		Imported: &fob.ImportedKeys{Locate: func(presented string) (string, bool) {
			lookup, _, ok := strings.Cut(presented, ".")
			return lookup, ok && len(lookup) == 4
		}},
	})
}

// importRow can be called again for a row that was imported before.
func importRow(ctx context.Context, keys *fob.Manager, r row) error {
	scopes, err := fob.ParseScopes(r.Scopes)
	if err != nil {
		return fmt.Errorf("row %s: %w", r.Lookup, err)
	}
	_, err = keys.ImportKey(ctx, fob.KeySpec{
		Subject: fob.App(r.Owner).In(fob.Account(r.Tenant)),
		Name:    r.Name,
		Scopes:  scopes,
		Tags:    []string{"imported"},
	}, fob.ImportedKey{
		Locator:   r.Lookup,
		Hash:      r.Hash,
		HashAfter: r.Lookup + ".", // the hash covers only what comes after this
	})
	if err != nil && !errors.Is(err, fob.ErrAlready) {
		return fmt.Errorf("row %s: %w", r.Lookup, err)
	}
	return nil
}

// notMoved counts the keys that still have their old text.
func notMoved(ctx context.Context, keys *fob.Manager) (int, error) {
	n, _, err := keys.Count(ctx, fob.Query{Tag: "imported", Status: fob.StatusActive})
	return n, err
}

func TestMovingIn(t *testing.T) {
	keys, err := openMovingIn(memory.New())
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	slow, err := bcrypt.GenerateFromPassword([]byte("correct-horse-battery"), bcrypt.MinCost)
	require.NoError(t, err)
	fast := sha256.Sum256([]byte("another-long-secret-of-ours"))
	rows := []row{
		{"acme", "ci", "deploys", "k7f2", string(slow), "orders:read"},
		{"acme", "erp", "nightly", "m3x9", hex.EncodeToString(fast[:]), "orders:read orders:write"},
	}
	for range 2 {
		for _, r := range rows {
			require.NoError(t, importRow(t.Context(), keys, r))
		}
	}
	for text, who := range map[string]string{"k7f2.correct-horse-battery": "ci", "m3x9.another-long-secret-of-ours": "erp"} {
		cred, err := keys.Verify(t.Context(), text)
		require.NoError(t, err, who)
		require.Equal(t, fob.App(who).In("acme"), cred.Subject())
	}
	_, err = keys.Verify(t.Context(), "k7f2.another-long-secret-of-ours")
	require.ErrorIs(t, err, fob.ErrUnknown)
	n, err := notMoved(t.Context(), keys)
	require.NoError(t, err)
	require.Equal(t, 2, n)

	broken := row{"acme", "ci", "deploys", "zzzz", "not a hash", "orders:read"}
	require.ErrorIs(t, importRow(t.Context(), keys, broken), fob.ErrInvalid)
}
