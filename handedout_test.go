package fob_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// Whoever is given a key can ask as of when it is so, from wherever the key is.
func TestEveryKeyTellsAsOfWhenItIsSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer store.Close()
		m := newManager(t, bare{store}, fob.Config{Imported: &fob.ImportedKeys{}})
		began := time.Now()
		text, issued := mustIssue(t, m, fob.KeySpec{Subject: fob.App("acme")})
		imported, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("acme")}, fob.ImportedKey{Secret: "key-of-another-system"})
		require.NoError(t, err)
		name := "renamed"
		updated, err := m.UpdateKey(t.Context(), issued.ID(), fob.KeyUpdate{Name: &name})
		require.NoError(t, err)
		_, rotated, err := m.RotateKey(t.Context(), issued.ID(), fob.Rotation{Overlap: time.Hour})
		require.NoError(t, err)
		got, err := m.Get(t.Context(), issued.ID())
		require.NoError(t, err)
		for from, cred := range map[string]fob.Credential{
			"IssueKey": issued, "ImportKey": imported, "UpdateKey": updated, "RotateKey": rotated, "Get": got, "Verify": mustVerify(t, m, text),
		} {
			require.Zero(t, cred.AsOf().Sub(began).Truncate(time.Millisecond), from)
		}
	})
}

// Whoever writes the scopes of a key that was just made writes a list, also an empty one.
func TestAKeyThatGrantsNothingHasAListOfScopes(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{})
	text, err := json.Marshal(key.Scopes())
	require.NoError(t, err)
	require.Equal(t, "[]", string(text))
	key, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &fob.Scopes{}})
	require.NoError(t, err)
	text, err = json.Marshal(key.Scopes())
	require.NoError(t, err)
	require.Equal(t, "[]", string(text))
}
