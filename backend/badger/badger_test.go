package badger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// With childDir set the test binary is a child that writes until it is killed,
// or with childOpens set one that opens the directory and says how that went.
const (
	childDir   = "FOB_BADGER_DIR"
	childRound = "FOB_BADGER_ROUND"
	childOpens = "FOB_BADGER_OPENS"
	childPower = "FOB_BADGER_POWER"
	childGroup = "FOB_BADGER_GROUP" // InsecureGroupAccess
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if base, err := strconv.ParseUint(os.Getenv(childPower), 10, 64); err == nil {
			powerWriter(dir, base)
			os.Exit(1)
		}
		store, err := badger.Open(dir, badger.Options{InsecureGroupAccess: os.Getenv(childGroup) != ""})
		if os.Getenv(childOpens) != "" {
			fmt.Print(err)
			os.Exit(0)
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		round, _ := strconv.Atoi(os.Getenv(childRound))
		backendtest.KillWriter(store, os.Stdout, round)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	return cmd
}

// powerWriter is the child of TestPowerLoss: it writes from 16 goroutines until
// that fails, and says on standard output what was acknowledged.
func powerWriter(dir string, base uint64) {
	s, err := badger.Open(dir, badger.Options{MinFreeBytes: 1 << 20})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var mu sync.Mutex
	var n atomic.Uint64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				i := base + n.Add(1)
				v, err := s.Put(context.Background(), record(i), backend.IfAbsent())
				if err == nil && i%2 == 0 { // a revocation is an overwrite
					v, err = s.Put(context.Background(), record(i), backend.IfVersion(v))
				}
				if err != nil {
					return // the power is gone
				}
				mu.Lock()
				fmt.Println("ack", i, v)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func open(t testing.TB, dir string, opts badger.Options) *badger.Store {
	t.Helper()
	s, err := badger.Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// long makes some tests do more of the same: make proof sets it.
var long = os.Getenv("FOB_LONG") != ""

// TestContract is of a store in the clear, and of an encrypted one in what that changes
// (with FOB_LONG in everything).
func TestContract(t *testing.T) {
	for name, opts := range map[string]badger.Options{
		"plain":     {},
		"encrypted": {EncryptionKey: bytes.Repeat([]byte{1}, 32)},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			dirs := map[backend.Store]string{}
			at := func(t *testing.T, dir string) backend.Store {
				s, err := badger.Open(dir, opts)
				require.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				dirs[s] = dir
				return s
			}
			suite := backendtest.Options{Reopen: func(t *testing.T, s backend.Store) backend.Store {
				require.NoError(t, s.Close())
				mu.Lock()
				dir := dirs[s]
				mu.Unlock()
				return at(t, dir)
			}, Scarce: func(_ *testing.T, s backend.Store) {
				s.(*badger.Store).SetFree(func() uint64 { return badger.LastFree })
			}, Batches: func(_ *testing.T, s backend.Store) backendtest.Batches {
				b := s.(*badger.Store)
				return backendtest.Batches{
					OnBatch:   func(f func()) { b.OnBatch(func(int) { f() }) },
					OnApplied: b.OnApplied, Waiting: b.Waiting,
				}
			}}
			if name == "encrypted" && !long {
				suite.Groups = []string{"get-put-delete", "identifiers", "listing", "durability", "usage", "model"}
			}
			if name == "plain" {
				suite.Kill = func(t *testing.T) {
					dir := t.TempDir()
					backendtest.KillLoop(t, 10, func(round int) *exec.Cmd {
						return child(dir, fmt.Sprint(childRound, "=", round))
					}, func(t *testing.T) backend.Store { return open(t, dir, badger.Options{}) })
				}
			}
			backendtest.Run(t, func(t *testing.T) backend.Store { return at(t, t.TempDir()) }, suite)
		})
	}
}

func TestManyWritersShareACommit(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	const writers, each = 64, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Put(context.Background(), record(uint64(w*each+i)), backend.IfAbsent()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	require.Equal(t, uint64(writers*each), st.Writes)
	require.Less(t, st.Commits, st.Writes/4, "writes that wait share a commit")
}

func TestAWriteCancelledWhileItWaitsIsNotMade(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnBatch(func(int) { once.Do(func() { close(busy); <-release }) })
	first := make(chan error, 1)
	go func() { _, err := s.Put(context.Background(), record(1), backend.IfAbsent()); first <- err }()
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { _, err := s.Put(ctx, record(2), backend.IfAbsent()); second <- err }()
	cancel()
	err := <-second
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
	close(release)
	require.NoError(t, <-first)
	_, err = s.Get(t.Context(), record(2).ID)
	require.ErrorIs(t, err, backend.ErrNotFound)
}

// After a failed commit nobody knows what is on disk: the outcome is unknown,
// and nothing is written or read until the store is opened again.
func TestAFailedCommitPoisonsTheStore(t *testing.T) {
	for _, readOn := range []bool{false, true} {
		t.Run(fmt.Sprint("ReadAfterFailure=", readOn), func(t *testing.T) {
			dir := t.TempDir()
			var logged bytes.Buffer
			s := open(t, dir, badger.Options{ReadAfterFailure: readOn, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))})
			kept := record(1)
			_, err := s.Put(t.Context(), kept, backend.IfAbsent())
			require.NoError(t, err)
			broken := errors.New("input/output error")
			s.FailCommits(broken)
			_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
			require.ErrorIs(t, err, backend.ErrIndeterminate)
			require.ErrorIs(t, err, broken)
			s.FailCommits(nil)
			_, err = s.Put(t.Context(), record(3), backend.IfAbsent())
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.ErrorContains(t, err, "open the store again")
			require.ErrorIs(t, s.AddUsage(t.Context(), []backend.Usage{{ID: kept.ID, N: 1}}), backend.ErrUnavailable)
			_, err = s.Get(t.Context(), kept.ID)
			_, listErr := s.List(t.Context(), backend.Query{Kind: 1})
			if readOn {
				require.NoError(t, errors.Join(err, listErr))
			} else {
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.ErrorIs(t, listErr, backend.ErrUnavailable)
			}
			require.ErrorIs(t, s.Watch(t.Context(), nil, func(backend.Batch) error { return nil }), backend.ErrUnavailable, "a feed would prove what is not so")
			require.Contains(t, logged.String(), "commit failed")
			require.NoError(t, s.Close())
			again := open(t, dir, badger.Options{})
			_, err = again.Get(t.Context(), kept.ID)
			require.NoError(t, err)
			_, err = again.Put(t.Context(), record(3), backend.IfAbsent())
			require.NoError(t, err)
		})
	}
}

func TestWritesStopBeforeTheDiskIsFull(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{MinFreeBytes: 100 << 20})
	var free atomic.Uint64
	free.Store(100 << 20)
	s.SetFree(free.Load)
	_, err := s.Put(t.Context(), record(1), backend.IfAbsent())
	require.NoError(t, err)
	free.Store(100<<20 - 1)
	_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "disk nearly full: 99 MiB free, 100 MiB are kept")
	require.NoError(t, s.Maintain(t.Context()), "it makes room, and has enough itself")
	urgent := record(3)
	v, err := s.Put(backend.Urgent(t.Context()), urgent, backend.IfAbsent())
	require.NoError(t, err)
	free.Store(badger.LastFree - 1)
	require.ErrorIs(t, s.Maintain(t.Context()), backend.ErrUnavailable)
	_, err = s.Put(backend.Urgent(t.Context()), urgent, backend.IfVersion(v))
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "disk full: 79 MiB free, 80 MiB are kept")
	require.ErrorIs(t, s.Delete(t.Context(), urgent.ID, v), backend.ErrUnavailable)
	_, err = s.Purge(t.Context(), time.Now(), 10)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	_, err = s.Get(t.Context(), record(1).ID)
	require.NoError(t, err, "reads go on")
	free.Store(200 << 20)
	_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
	require.NoError(t, err)
}

func TestADirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, badger.Options{})
	_, err := badger.Open(dir, badger.Options{})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "in use by another process")
	out, err := child(dir, childOpens+"=1").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "in use by another process")
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.NoError(t, err, "the first one is not disturbed")
}

func TestAnEmptyMemtableFileLeftByAKillIsRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, badger.Options{})
	_, err := s.Put(t.Context(), record(1), backend.IfAbsent())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	empty := filepath.Join(dir, "00099.mem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	var logged bytes.Buffer
	s = open(t, dir, badger.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	_, err = s.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
	require.Contains(t, logged.String(), "removed an empty memtable file")
}

// A Watch proves as often as its caller wants, and tells of a change at once all the same.
func TestAWatchProvesAsOftenAsIsWanted(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	const every = 500 * time.Millisecond
	enough := errors.New("enough")
	began := time.Now()
	n := 0
	err := s.Watch(backend.WithProofEvery(t.Context(), every), nil, func(b backend.Batch) error {
		n++
		require.GreaterOrEqual(t, b.AsOf.Sub(began), time.Duration(n-1)*every, "proof %d", n)
		if n == 4 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	n = 0
	err = s.Watch(backend.WithProofEvery(t.Context(), time.Hour), nil, func(b backend.Batch) error {
		if n++; n == 1 {
			_, err := s.Put(t.Context(), record(1), backend.IfAbsent())
			require.NoError(t, err)
		}
		if len(b.Changes) > 0 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
}

func TestACorruptValueIsCorruptAndNotMissing(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	rec := record(1)
	version, err := s.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	for name, change := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)-1] },
		"empty":   func([]byte) []byte { return nil },
		"version": func(b []byte) []byte { b[0] = 9; return b },
	} {
		t.Run(name, func(t *testing.T) {
			var sound []byte
			require.NoError(t, s.Overwrite(rec.ID, func(b []byte) []byte { sound = bytes.Clone(b); return change(b) }))
			_, err := s.Get(t.Context(), rec.ID)
			require.ErrorIs(t, err, backend.ErrCorrupt)
			require.NotErrorIs(t, err, backend.ErrNotFound)
			_, err = s.List(t.Context(), backend.Query{Kind: 1})
			require.ErrorIs(t, err, backend.ErrCorrupt)
			_, err = s.Put(t.Context(), rec, backend.IfVersion(version))
			require.ErrorIs(t, err, backend.ErrCorrupt)
			_, err = s.Put(t.Context(), rec, backend.IfAbsent())
			require.ErrorIs(t, err, backend.ErrCorrupt, "what is damaged is not absent")
			require.NoError(t, s.Overwrite(rec.ID, func([]byte) []byte { return sound }))
		})
	}
	// A value that was moved under another key is no record of that key.
	other := record(2)
	_, err = s.Put(t.Context(), other, backend.IfAbsent())
	require.NoError(t, err)
	var first []byte
	require.NoError(t, s.Overwrite(rec.ID, func(b []byte) []byte { first = bytes.Clone(b); return b }))
	require.NoError(t, s.Overwrite(other.ID, func([]byte) []byte { return first }))
	_, err = s.Get(t.Context(), other.ID)
	require.ErrorIs(t, err, backend.ErrCorrupt)
}

func TestEncryptionAtRest(t *testing.T) {
	dir := t.TempDir()
	key, next := badger.EncryptionKey(bytes.Repeat([]byte{1}, 32)), badger.EncryptionKey(bytes.Repeat([]byte{2}, 16))
	s := open(t, dir, badger.Options{EncryptionKey: key})
	rec := record(1)
	rec.Owner, rec.Body = "a-readable-owner", []byte("a-readable-body")
	_, err := s.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	require.NoError(t, s.Maintain(t.Context()))
	require.ErrorIs(t, badger.RotateEncryptionKey(dir, key, next), backend.ErrUnavailable, "not while it is open")
	require.NoError(t, s.Close())
	bytesOfKey := strings.Trim(fmt.Sprint([]byte(key)), "[]")
	for _, verb := range []string{"%v", "%+v", "%s"} {
		require.NotContains(t, fmt.Sprintf(verb, struct{ s *badger.Store }{s})+fmt.Sprintf(verb, s), bytesOfKey, verb)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		require.NotContains(t, string(content), "a-readable", f.Name())
	}

	for name, wrong := range map[string]badger.EncryptionKey{"none": nil, "another": next} {
		_, err := badger.Open(dir, badger.Options{EncryptionKey: wrong})
		require.ErrorContains(t, err, "wrong encryption key", name)
		if wrong != nil {
			require.NotContains(t, err.Error(), string(wrong))
		}
	}
	require.Error(t, badger.RotateEncryptionKey(dir, next, next), "the old key is wrong")
	require.NoError(t, badger.RotateEncryptionKey(dir, key, next))
	_, err = badger.Open(dir, badger.Options{EncryptionKey: key})
	require.ErrorContains(t, err, "wrong encryption key")
	s = open(t, dir, badger.Options{EncryptionKey: next})
	got, err := s.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	require.Equal(t, rec.Body, got.Body)

	_, err = badger.Open(t.TempDir(), badger.Options{EncryptionKey: []byte("short")})
	require.ErrorContains(t, err, "5 bytes")
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", key, badger.Options{EncryptionKey: key}, badger.BackupKey(key)), "1, 1")
	require.NotContains(t, fmt.Sprintf("%x %s", key, key), strings.Repeat("01", 8))
}

// fill writes records and returns their versions.
func fill(t *testing.T, s *badger.Store, from, to uint64) map[backend.ID]uint64 {
	t.Helper()
	versions := map[backend.ID]uint64{}
	var mu sync.Mutex
	var next atomic.Uint64
	next.Store(from)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < to; n = next.Add(1) - 1 {
				v, err := s.Put(context.Background(), record(n), backend.IfAbsent())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				versions[record(n).ID] = v
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return versions
}

func TestBackupAndRestore(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	key := badger.BackupKey(bytes.Repeat([]byte{9}, 32))
	versions := fill(t, s, 0, 2000)
	var full bytes.Buffer
	require.NoError(t, s.Backup(t.Context(), &full, key))
	require.NotContains(t, full.String(), "app-1", "a backup is sealed")
	var token backend.Token
	stop := errors.New("stop")
	require.ErrorIs(t, s.Watch(t.Context(), nil, func(b backend.Batch) error { token = b.Token; return stop }), stop)

	// What happens afterwards is not in it.
	gone := record(3)
	require.NoError(t, s.Delete(t.Context(), gone.ID, versions[gone.ID]))

	for name, opts := range map[string]badger.Options{"plain": {}, "encrypted": {EncryptionKey: bytes.Repeat([]byte{5}, 32)}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			require.NoError(t, badger.Restore(t.Context(), dir, key, opts, bytes.NewReader(full.Bytes())))
			r := open(t, dir, opts)
			for id, v := range versions {
				rec, err := r.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, v, rec.Version)
			}
			page, err := r.List(t.Context(), backend.Query{Kind: 1, Owner: "app-3", Limit: 1000})
			require.NoError(t, err)
			require.Len(t, page.Records, 20)
			reset := false
			require.ErrorIs(t, r.Watch(t.Context(), token, func(b backend.Batch) error { reset = b.Reset; return stop }), stop)
			require.True(t, reset, "a restored store is a new one to those who follow it")
			_, err = r.Put(t.Context(), record(9999), backend.IfAbsent())
			require.NoError(t, err)
		})
	}

	sealed := full.Bytes()
	flip := func(i int) []byte { b := bytes.Clone(sealed); b[i] ^= 1; return b }
	for name, c := range map[string]struct {
		key    badger.BackupKey
		stream []byte
	}{
		"another key":         {bytes.Repeat([]byte{8}, 32), sealed},
		"changed header":      {key, flip(25)},
		"changed first chunk": {key, flip(100)},
		"changed last byte":   {key, flip(len(sealed) - 1)},
		"cut in a chunk":      {key, sealed[:len(sealed)/2]},
		"cut before the end":  {key, sealed[:len(sealed)-20]},
		"something follows":   {key, append(bytes.Clone(sealed), 0)},
		"twice":               {key, append(bytes.Clone(sealed), sealed...)},
		"empty":               {key, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			require.ErrorIs(t, badger.Restore(t.Context(), dir, c.key, badger.Options{}, bytes.NewReader(c.stream)), badger.ErrBackup)
			_, err := badger.Open(dir, badger.Options{})
			require.ErrorIs(t, err, backend.ErrUnavailable, "half a store is not opened")
			require.ErrorContains(t, err, "did not finish")
		})
	}
	used := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(used, "x"), nil, 0o600))
	require.ErrorIs(t, badger.Restore(t.Context(), used, key, badger.Options{}, bytes.NewReader(sealed)), backend.ErrInvalid)
	require.ErrorContains(t, s.Backup(t.Context(), io.Discard, badger.BackupKey("short")), "5 bytes")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Backup(cancelled, io.Discard, key), context.Canceled)
}

// What is older than the feed's memory gets a Reset, after a restart too.
func TestAFeedThatWasTrimmedResets(t *testing.T) {
	if testing.Short() {
		t.SkipNow()
	}
	dir := t.TempDir()
	s := open(t, dir, badger.Options{})
	stop := errors.New("stop")
	var old, recent backend.Token
	require.ErrorIs(t, s.Watch(t.Context(), nil, func(b backend.Batch) error { old = b.Token; return stop }), stop)
	fill(t, s, 0, badger.KeepLog+5000)
	require.ErrorIs(t, s.Watch(t.Context(), nil, func(b backend.Batch) error { recent = b.Token; return stop }), stop)
	last := record(1_000_000)
	_, err := s.Put(t.Context(), last, backend.IfAbsent())
	require.NoError(t, err)
	check := func(s *badger.Store) {
		require.ErrorIs(t, s.Watch(t.Context(), old, func(b backend.Batch) error {
			require.True(t, b.Reset)
			return stop
		}), stop)
		require.ErrorIs(t, s.Watch(t.Context(), recent, func(b backend.Batch) error {
			require.False(t, b.Reset)
			require.Len(t, b.Changes, 1)
			require.Equal(t, last.ID, b.Changes[0].ID)
			return stop
		}), stop)
	}
	check(s)
	require.NoError(t, s.Close())
	check(open(t, dir, badger.Options{}))
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := badger.Open(t.TempDir(), badger.Options{IndexCacheBytes: -1})
	require.ErrorContains(t, err, "IndexCacheBytes")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = badger.Open(file, badger.Options{})
	require.Error(t, err)
}
