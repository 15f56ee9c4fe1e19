package fob_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
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
	kept, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("kept")})
	before, beforeKey := mustIssue(t, m, fob.KeySpec{Subject: fob.App("a")})
	since := time.Now()
	_, err = m.Revoke(t.Context(), beforeKey.ID(), "before")
	require.NoError(t, err)
	leaked, leakedKey := mustIssue(t, m, fob.KeySpec{Subject: fob.App("b")})
	cutOff, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("c")})

	var backup bytes.Buffer
	key := badger.BackupKey(bytes.Repeat([]byte{7}, 32))
	err = store.Backup(t.Context(), &backup, key)
	require.NoError(t, err)

	_, err = m.Revoke(t.Context(), leakedKey.ID(), "leaked")
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.App("c"), "contract ended")
	require.NoError(t, err)
	_, later := mustIssue(t, m, fob.KeySpec{Subject: fob.App("d")})
	_, err = m.Revoke(t.Context(), later.ID(), "")
	require.NoError(t, err)
	var exported bytes.Buffer
	n, err := m.ExportRevocations(t.Context(), &exported, since)
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
	fresh, _ := mustIssue(t, again, fob.KeySpec{Subject: fob.App("c")})
	done, err = again.ApplyRevocations(t.Context(), strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Already: 3, Unknown: 1}, done)
	mustVerify(t, again, fresh) // applying again does not end what was issued since
}

func TestWhatIsNoExport(t *testing.T) {
	m := newManager(t, memory.New(), fob.Config{})
	for _, bad := range []string{
		"nonsense", "{}", `{"id":"short"}`, `{"subject":"a","epoch":5}`,
		`{"id":"0ZqKJ3vT9xWm4cRb","subject":{"kind":"user","name":"a"}}`, `{"account":"a","subject":{"kind":"user","name":"a"},"epoch":5}`, `{"id":"0ZqKJ3vT9xWm4cRb","epoch":5}`,
		`{"subject":{"kind":"user","name":"a"}}`, `{"account":"a"}`, `{"account":"a\u0000","epoch":5}`, `{"subject":{"kind":"robot","name":"a"},"epoch":5}`, `{"subject":{"name":"a"},"epoch":5}`, `{"subject":{"kind":"application","name":"a"},"epoch":-1}`,
		`{"subject":{"kind":"application","name":"a"},"epoch":253402300800000}`, `{"subject":{"kind":"application","name":"a"},"epoch":5,"disabled":true}`,
		`{"reason":"` + strings.Repeat("x", 70<<10) + `"}`,
	} {
		done, err := m.ApplyRevocations(t.Context(), strings.NewReader(bad+"\n"))
		require.ErrorIs(t, err, fob.ErrInvalid, "%.100s", bad)
		require.ErrorContains(t, err, "line 1")
		require.Zero(t, done)
	}
	done, err := m.ApplyRevocations(t.Context(), strings.NewReader(""))
	require.NoError(t, err)
	require.Zero(t, done)
}

// A key that was disabled or rotated out since comes back with a backup as well, and
// is ended again; what was enabled again, or overlaps still, is not.
func TestDisabledAndRotatedOutKeysAreExported(t *testing.T) {
	clock := newClock()
	cfg := fob.Config{Clock: clock.Now}
	store, backup := memory.New(), memory.New() // as it is, and as it was
	m := newManager(t, store, cfg)
	issue := func() (string, *fob.Key) {
		text, key := mustIssue(t, m, fob.KeySpec{})
		rec, err := store.Get(t.Context(), idOf(key))
		require.NoError(t, err)
		_, err = backup.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
		return text, key
	}
	disabled, disabledKey := issue()
	enabled, enabledKey := issue()
	rotated, rotatedKey := issue()
	overlapping, overlappingKey := issue()
	clock.Add(time.Second)
	require.NoError(t, m.Disable(t.Context(), disabledKey.ID(), ""))
	require.NoError(t, m.Disable(t.Context(), enabledKey.ID(), ""))
	require.NoError(t, m.Enable(t.Context(), enabledKey.ID()))
	clock.Add(time.Hour)
	since := clock.Now()
	_, _, err := m.RotateKey(t.Context(), rotatedKey.ID(), fob.Rotation{})
	require.NoError(t, err)
	_, _, err = m.RotateKey(t.Context(), overlappingKey.ID(), fob.Rotation{Overlap: time.Hour})
	require.NoError(t, err)
	var exported bytes.Buffer
	n, err := m.ExportRevocations(t.Context(), &exported, since)
	require.NoError(t, err)
	require.Equal(t, 2, n, "%s", &exported)

	restored := newManager(t, backup, cfg)
	mustVerify(t, restored, disabled) // this is what a backup does
	mustVerify(t, restored, rotated)
	lines := exported.String()
	done, err := restored.ApplyRevocations(t.Context(), strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Revoked: 2}, done)
	mustReject(t, restored, disabled, fob.ErrDisabled)
	mustReject(t, restored, rotated, fob.ErrRevoked)
	mustVerify(t, restored, enabled)
	mustVerify(t, restored, overlapping)
	done, err = restored.ApplyRevocations(t.Context(), strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Already: 2}, done)
	require.NoError(t, restored.Enable(t.Context(), disabledKey.ID()), "disabled is not revoked")

	clock.Add(time.Hour)
	exported.Reset()
	_, err = m.ExportRevocations(t.Context(), &exported, since)
	require.NoError(t, err)
	require.Contains(t, exported.String(), overlappingKey.ID().String(), "its overlap is over")
	_, err = restored.Revoke(t.Context(), disabledKey.ID(), "")
	require.NoError(t, err)
	none := `{"id":"0ZqKJ3vT9xWm4cRb","disabled":true}` + "\n"
	done, err = restored.ApplyRevocations(t.Context(), strings.NewReader(lines+none))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Already: 2, Unknown: 1}, done)
}

// What the store keeps are whole milliseconds: an export takes in the one that since
// lies in.
func TestAnExportMissesNothingOfTheMillisecondItBeginsIn(t *testing.T) {
	clock := newClock()
	clock.Add(100 * time.Microsecond)
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	_, key := mustIssue(t, m, fob.KeySpec{})
	since := clock.Now()
	clock.Add(300 * time.Microsecond)
	_, err := m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.User("s"), "")
	require.NoError(t, err)
	n, err := m.ExportRevocations(t.Context(), io.Discard, since)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	n, err = m.ExportRevocations(t.Context(), io.Discard, since.Add(time.Millisecond))
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestTheHighestEpochCanBeExported(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, err := m.ApplyRevocations(t.Context(), strings.NewReader(`{"subject":{"kind":"application","name":"a"},"epoch":253402300799999}`))
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.App("a"), "") // and above it
	require.NoError(t, err)
	n, err := m.ExportRevocations(t.Context(), io.Discard, time.Time{})
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestACorruptRecordDoesNotEndAnExport(t *testing.T) {
	store, clock := memory.New(), newClock()
	m := newManager(t, store, fob.Config{Clock: clock.Now})
	for range 20 {
		_, bad := mustIssue(t, m, fob.KeySpec{})
		rec, err := store.Get(t.Context(), idOf(bad))
		require.NoError(t, err)
		rec.Body[5] ^= 1
		_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
		require.NoError(t, err)
	}
	clock.Add(time.Second)
	_, good := mustIssue(t, m, fob.KeySpec{})
	_, err := m.Revoke(t.Context(), good.ID(), "")
	require.NoError(t, err)
	var exported bytes.Buffer
	n, err := m.ExportRevocations(t.Context(), &exported, time.Time{})
	require.ErrorIs(t, err, fob.ErrCorrupt)
	require.ErrorContains(t, err, "4 records more")
	require.Equal(t, 1, n, "the ones after it are exported")
	require.Contains(t, exported.String(), good.ID().String())
}

// An Observer can write the lines as they happen: what it is told is what is
// exported, and a reason comes in the form in which it is kept.
func TestAnObserverLearnsWhatAnExportSays(t *testing.T) {
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Observer: seen})
	_, err := m.Revoke(t.Context(), fob.User("a"), "ended")
	require.NoError(t, err)
	line := fmt.Sprintf(`{"subject":{"kind":"application","name":"b"},"epoch":5,"reason":"x\u001b[2J\n%s"}`, strings.Repeat("y", 1000))
	_, err = m.ApplyRevocations(t.Context(), strings.NewReader(line))
	require.NoError(t, err)
	var exported bytes.Buffer
	n, err := m.ExportRevocations(t.Context(), &exported, time.Time{})
	require.NoError(t, err)
	require.Equal(t, len(seen.events), n)
	told := make(map[string]fob.Revocation)
	for _, e := range seen.events {
		told[e.Subject.Name] = fob.Revocation{Subject: e.Subject, Epoch: e.Epoch, Reason: e.Reason}
	}
	lines := json.NewDecoder(&exported)
	for range n {
		var r fob.Revocation
		require.NoError(t, lines.Decode(&r))
		r.At = time.Time{}
		require.Equal(t, r, told[r.Subject.Name])
		require.LessOrEqual(t, len(r.Reason), 256)
	}
}
