package badger_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// far is a record whose ID is far from that of its twin.
func far(n int, high bool) backend.Record {
	rec := record(uint64(n))
	rec.ID = backend.ID{0x01, byte(n >> 8), byte(n)}
	if high {
		rec.ID[0] = 0xfe
	}
	rec.Body = make([]byte, 600)
	return rec
}

// TestABackupAmidWritesIsOneInstant: writers count up in two records each, first
// in one and then in its twin at the other end of the keys. A backup must not have
// a twin that is ahead.
func TestABackupAmidWritesIsOneInstant(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, badger.Options{})
	fill(t, s, 0, 60_000)
	const writers = 16
	versions := make([][2]uint64, writers)
	for i := range versions {
		for j, high := range []bool{false, true} {
			v, err := s.Put(t.Context(), far(i, high), backend.IfAbsent())
			require.NoError(t, err)
			versions[i][j] = v
		}
	}
	require.NoError(t, s.Close())
	s = open(t, dir, badger.Options{}) // what was filled is in several tables now
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for !stop.Load() {
				for j, high := range []bool{false, true} {
					rec := far(i, high)
					rec.Body = fmt.Appendf(nil, "%d", versions[i][0]) // of the twin: after that version of the first
					v, err := s.Put(context.Background(), rec, backend.IfVersion(versions[i][j]))
					if err != nil {
						t.Error(err)
						return
					}
					versions[i][j] = v
				}
			}
		})
	}
	key := badger.BackupKey(bytes.Repeat([]byte{9}, 32))
	n := 3
	if long {
		n = 8
	}
	backups := make([]bytes.Buffer, n)
	for i := range backups {
		require.NoError(t, s.Backup(t.Context(), &backups[i], key))
	}
	stop.Store(true)
	wg.Wait()
	for i := range backups {
		to := filepath.Join(t.TempDir(), "restored")
		require.NoError(t, badger.Restore(t.Context(), to, key, badger.Options{}, &backups[i]))
		r := open(t, to, badger.Options{})
		for w := range writers {
			first, err := r.Get(t.Context(), far(w, false).ID)
			require.NoError(t, err)
			twin, err := r.Get(t.Context(), far(w, true).ID)
			require.NoError(t, err)
			var seen uint64 // the version of the first that the twin was written after
			if _, err := fmt.Sscan(string(twin.Body), &seen); err == nil {
				require.LessOrEqual(t, seen, first.Version, "backup %d: the twin is ahead", i)
			}
		}
		require.NoError(t, r.Close())
	}
}

// holds is a key in an exported field, as an application's configuration has it.
type holds[K any] struct {
	Key  K            `yaml:"key"`
	At   *K           `yaml:"at"`
	Many []K          `yaml:"many"`
	By   map[string]K `yaml:"by" xml:"-"`
}

func held[K any](key K) []any {
	h := holds[K]{key, &key, []K{key}, map[string]K{"a": key}}
	return []any{key, &key, h, &h, []K{key}, map[string]K{"a": key}, []any{key, &key}}
}

func TestKeysAreNotPrintedByAnybody(t *testing.T) {
	secret := bytes.Repeat([]byte("S3CR"), 8)
	opts := badger.Options{EncryptionKey: secret}
	store := open(t, t.TempDir(), opts)
	values := slices.Concat(held(badger.EncryptionKey(secret)), held(badger.BackupKey(secret)), []any{opts, &opts, []badger.Options{opts}, store, []any{store}})
	for _, v := range values {
		var out bytes.Buffer
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'w' || verb == 'p' { // fmt hands them to nobody's Format: see EncryptionKey
				continue
			}
			for _, flags := range []string{"", "+", "#", " ", "0", "-40", ".3", "# "} {
				fmt.Fprintf(&out, "%"+flags+string(verb), v)
			}
		}
		fmt.Fprintln(&out, v, fmt.Sprint(v), fmt.Errorf("wrapped: %v", v))
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("x", "key", v, slog.Group("g", "key", v))
		}
		// What cannot be encoded says so, and shows nothing.
		encoded, err := json.Marshal(v)
		fmt.Fprintln(&out, string(encoded), err)
		encoded, err = xml.Marshal(v)
		fmt.Fprintln(&out, string(encoded), err)
		fmt.Fprintln(&out, gob.NewEncoder(&out).Encode(v))
		for _, shown := range []string{"S3CR", "UzNDUl", "M0NSUz", "Q1JTM0", "83 51 67", "53334352", "53 33 43 52", "0x53, 0x33", "83, 51, 67", "123 63 103", "1010011 110011"} {
			require.False(t, strings.Contains(out.String(), shown), "%T shows %q", v, shown)
		}
	}
}

func TestEncryptionCannotBeTakenAway(t *testing.T) {
	dir, key := t.TempDir(), badger.EncryptionKey(bytes.Repeat([]byte{5}, 32))
	s := open(t, dir, badger.Options{EncryptionKey: key})
	fill(t, s, 0, 100)
	require.NoError(t, s.Close())
	require.ErrorIs(t, badger.RotateEncryptionKey(dir, key, nil), backend.ErrInvalid)
	s = open(t, dir, badger.Options{EncryptionKey: key})
	_, err := s.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
}

// TestAFeedThatWasTrimmedUnderARead: the log goes away between the look at where it
// begins and the reading of it.
func TestAFeedThatWasTrimmedUnderARead(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	stop := errors.New("stop")
	var token backend.Token
	require.ErrorIs(t, s.Watch(t.Context(), nil, func(b backend.Batch) error { token = b.Token; return stop }), stop)
	versions := fill(t, s, 0, 10)
	require.NoError(t, s.DropLog(1))
	err := s.Watch(t.Context(), token, func(b backend.Batch) error {
		require.True(t, b.Reset, "a change is missing, and nobody says so")
		require.Empty(t, b.Changes)
		return stop
	})
	require.ErrorIs(t, err, stop)
	require.Len(t, versions, 10)
}

// TestARefusalThatRestsOnAFailedCommit: a Put is refused because of a Delete in the
// same commit. If that fails, the refusal was about nothing.
func TestARefusalThatRestsOnAFailedCommit(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	rec := record(1)
	v, err := s.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnBatch(func(int) { once.Do(func() { close(busy); <-release }) })
	held := make(chan error)
	go func() { _, err := s.Put(context.Background(), record(2), backend.IfAbsent()); held <- err }()
	<-busy
	deleted, put := make(chan error), make(chan error)
	go func() { deleted <- s.Delete(context.Background(), rec.ID, v) }()
	await.Until(t, "the Delete in the queue", func() bool { return s.Waiting() == 1 })
	go func() { _, err := s.Put(context.Background(), rec, backend.IfVersion(v)); put <- err }()
	await.Until(t, "the Put behind it", func() bool { return s.Waiting() == 2 })
	s.FailCommits(errors.New("input/output error"))
	close(release)
	require.ErrorIs(t, <-held, backend.ErrIndeterminate)
	require.Error(t, <-deleted)
	require.NotErrorIs(t, <-put, backend.ErrNotFound)
}

// TestACommitThatHangs: callers whose time is up are told that the outcome is
// unknown.
func TestACommitThatHangs(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	release := make(chan struct{})
	s.OnCommit(func() { <-release })
	rec := record(1)
	await.Until(t, "a Put that was on its way at its deadline", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := s.Put(ctx, rec, backend.IfAbsent())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return errors.Is(err, backend.ErrIndeterminate)
	})
	clear(rec.Body) // its caller's again, while the writer still has it
	close(release)
	await.Until(t, "the record of the commit that hung", func() bool {
		got, err := s.Get(context.Background(), rec.ID)
		return err == nil && bytes.Equal(got.Body, record(1).Body)
	})
}

// TestCloseBehindABackupHoldsUpNobody, however slow the backup is.
func TestCloseBehindABackupHoldsUpNobody(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	fill(t, s, 0, 100)
	writing, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := writerFunc(func(b []byte) (int, error) {
		once.Do(func() { close(writing) })
		<-release
		return len(b), nil
	})
	backedUp, closed := make(chan error), make(chan error)
	go func() { backedUp <- s.Backup(context.Background(), slow, bytes.Repeat([]byte{9}, 32)) }()
	<-writing
	go func() { closed <- s.Close() }()
	await.Until(t, "ErrClosed", func() bool {
		_, err := s.Get(context.Background(), record(1).ID)
		return errors.Is(err, backend.ErrClosed)
	})
	close(release)
	require.NoError(t, <-backedUp)
	require.NoError(t, <-closed)
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

var _ io.Writer = writerFunc(nil)

func TestConcurrentMaintenanceLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	s := open(t, t.TempDir(), badger.Options{})
	fill(t, s, 0, 1000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := s.Maintain(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Close())
	await.Until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// TestOneDamagedRecordDoesNotStopThePurge of those after it.
func TestOneDamagedRecordDoesNotStopThePurge(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	for i := range 3 {
		rec := record(uint64(i))
		rec.PurgeAt = int64(1 + i)
		_, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	require.NoError(t, s.Overwrite(record(0).ID, func([]byte) []byte { return nil }))
	n, err := s.Purge(t.Context(), time.UnixMilli(100), 10)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	_, err = s.Get(t.Context(), record(0).ID)
	require.ErrorIs(t, err, backend.ErrCorrupt, "still reported, never taken for absent")
}
