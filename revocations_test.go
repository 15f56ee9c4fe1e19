package fob_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// A backup brings back what was revoked since; the exported revocations end it
// again.
func TestComingBackFromABackup(t *testing.T) {
	dir := t.TempDir()
	store, err := badger.Open(dir+"/live", badger.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	m := newManager(t, store, fob.Config{})
	kept, _ := mustIssue(t, m, fob.KeySpec{Subject: "kept"})
	before, beforeKey := mustIssue(t, m, fob.KeySpec{Subject: "a"})
	_, err = m.Revoke(t.Context(), beforeKey.ID(), "before")
	require.NoError(t, err)
	leaked, leakedKey := mustIssue(t, m, fob.KeySpec{Subject: "b"})
	cutOff, _ := mustIssue(t, m, fob.KeySpec{Subject: "c"})

	var backup bytes.Buffer
	key := badger.BackupKey(bytes.Repeat([]byte{7}, 32))
	err = store.Backup(t.Context(), &backup, key)
	require.NoError(t, err)

	taken := time.Now()
	_, err = m.Revoke(t.Context(), leakedKey.ID(), "leaked")
	require.NoError(t, err)
	_, err = m.RevokeSubject(t.Context(), "c", "contract ended", fob.SubjectApplication)
	require.NoError(t, err)
	_, later := mustIssue(t, m, fob.KeySpec{Subject: "d"})
	_, err = m.Revoke(t.Context(), later.ID(), "")
	require.NoError(t, err)
	var exported bytes.Buffer
	n, err := m.ExportRevocations(t.Context(), &exported, taken.Add(-time.Second))
	require.NoError(t, err)
	require.Equal(t, 4, n, "the one from a moment before too: %s", &exported)

	require.NoError(t, badger.Restore(t.Context(), dir+"/restored", key, badger.Options{}, &backup))
	restored, err := badger.Open(dir+"/restored", badger.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = restored.Close() })
	again := newManager(t, restored, fob.Config{})
	mustVerify(t, again, leaked) // this is what a backup does
	mustVerify(t, again, cutOff)
	mustReject(t, again, before, fob.ErrRevoked)

	lines := exported.String()
	done, err := again.ApplyRevocations(t.Context(), strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Revoked: 2, Already: 1, Unknown: 1}, done)
	mustReject(t, again, leaked, fob.ErrRevoked)
	mustReject(t, again, cutOff, fob.ErrRevoked)
	mustVerify(t, again, kept)
	fresh, _ := mustIssue(t, again, fob.KeySpec{Subject: "c"})
	done, err = again.ApplyRevocations(t.Context(), strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Already: 3, Unknown: 1}, done)
	mustVerify(t, again, fresh) // applying again does not end what was issued since
}

func TestWhatIsNoExport(t *testing.T) {
	m := newManager(t, memory.New(), fob.Config{})
	for _, bad := range []string{
		"nonsense", "{}", `{"id":"short"}`, `{"id":"0ZqKJ3vT9xWm4cRb","subject":"a"}`, `{"subject":"a"}`,
		`{"subject":"a","subject_kind":1}`, `{"subject":"a","subject_kind":9,"epoch":5}`, `{"subject":"a","subject_kind":1,"epoch":-1}`,
	} {
		done, err := m.ApplyRevocations(t.Context(), strings.NewReader(bad+"\n"))
		require.ErrorIs(t, err, fob.ErrInvalid, bad)
		require.ErrorContains(t, err, "line 1")
		require.Zero(t, done)
	}
	done, err := m.ApplyRevocations(t.Context(), strings.NewReader(""))
	require.NoError(t, err)
	require.Zero(t, done)
}
