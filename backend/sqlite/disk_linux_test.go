package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// image makes a file system of its own in a file, mounted through a loop
// device, and returns where, and how to mount it again.
func image(t *testing.T, megabytes int64) (dir string, remount func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making and mounting a file system needs root")
	}
	base := t.TempDir()
	file := filepath.Join(base, "image")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, megabytes<<20))
	run := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, args, out)
	}
	run("mkfs.ext4", "-q", "-F", "-m", "0", file)
	dir = filepath.Join(base, "mounted")
	require.NoError(t, os.Mkdir(dir, 0o700))
	run("mount", "-o", "loop", file, dir)
	unmount := func() {
		t.Helper()
		// The kernel lets go of the maps of a process that was killed a little later.
		await.Until(t, "a file system that nobody uses", func() bool { return exec.Command("umount", dir).Run() == nil })
	}
	t.Cleanup(unmount)
	return dir, func() {
		t.Helper()
		unmount()
		run("mount", "-o", "loop", file, dir)
	}
}

// shutDown stops a file system as a power cut does: what has not reached the
// device is gone, the journal is not flushed (FS_IOC_SHUTDOWN with
// GOING_FLAGS_NOLOGFLUSH, as fstests does it).
func shutDown(t *testing.T, dir string) {
	t.Helper()
	const fsIocShutdown, noLogFlush = 0x8004587d, 2
	d, err := os.Open(dir)
	require.NoError(t, err)
	defer func() { _ = d.Close() }()
	require.NoError(t, unix.IoctlSetPointerInt(int(d.Fd()), fsIocShutdown, noLogFlush))
}

// Nothing acknowledged is lost when the power goes. Each round makes a file of its
// own at some turns, so that the first commits of a file are among what is cut.
func TestPowerLoss(t *testing.T) {
	rounds := 6
	if slow || testing.Short() {
		rounds = 2
	}
	dir, remount := image(t, 256)
	acked := map[string]map[uint64]uint64{}
	total := 0
	for round := range rounds {
		file := filepath.Join(dir, fmt.Sprintf("fob-%d.db", round/3))
		if acked[file] == nil {
			acked[file] = map[uint64]uint64{}
		}
		cmd := child(file, "power", round*1_000_000+1)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		seen, enough := 0, 20+700*round%2500
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var n, v uint64
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %d", &n, &v); err != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("the child says %q", lines.Text())
			}
			// What is still in the pipe then counts for nothing: an fsync that overlaps
			// the shutdown can answer that it was done, which no power cut lets anybody see.
			if seen >= enough {
				continue
			}
			acked[file][n] = v
			if seen++; seen == enough {
				shutDown(t, dir)
				require.NoError(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait()
		require.GreaterOrEqual(t, seen, enough, "round %d: the child ended by itself", round)
		total += seen
		remount()

		for file, acked := range acked {
			s := open(t, file, sqlite.Options{})
			for n, v := range acked {
				rec, err := s.Get(t.Context(), record(n).ID)
				require.NoError(t, err, "round %d: an acknowledged write is lost", round)
				require.GreaterOrEqual(t, rec.Version, v, "round %d: an acknowledged overwrite is undone", round)
			}
			require.NoError(t, s.Close())
		}
	}
	t.Logf("%d rounds, %d records acknowledged, none lost", rounds, total)
}

// A disk that fills up makes writes fail, surely not applied, and nothing worse:
// the process goes on, reads go on, and when there is room again writes do.
func TestADiskThatFillsUp(t *testing.T) {
	dir, _ := image(t, 24)
	file := filepath.Join(dir, "fob.db")
	s := open(t, file, sqlite.Options{MinFreeBytes: 1}) // SQLite itself finds it full
	first, err := s.Put(t.Context(), record(0), backend.IfAbsent())
	require.NoError(t, err)

	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	require.NoError(t, err)
	for { // leave 4 MiB
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &st))
		if st.Bavail*uint64(st.Bsize) <= 4<<20 {
			break
		}
		_, err := f.Write(make([]byte, 256<<10))
		require.NoError(t, err)
		require.NoError(t, f.Sync())
	}
	var written []backend.Record
	for i := range uint64(1000) {
		rec := record(1 + i)
		rec.Body = make([]byte, backend.MaxBody)
		_, err = s.Put(t.Context(), rec, backend.IfAbsent())
		if err != nil {
			break
		}
		written = append(written, rec)
	}
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
	require.ErrorContains(t, err, "full")
	t.Logf("after %d large records: %v", len(written), err)
	refused := record(1 + uint64(len(written)))
	for i := range 20 { // by one and by many
		errs := make(chan error, 8)
		for w := range uint64(8) {
			go func() {
				rec := record(10_000 + uint64(i)*10 + w)
				rec.Body = make([]byte, backend.MaxBody)
				_, err := s.Put(context.Background(), rec, backend.IfAbsent())
				errs <- err
			}()
		}
		for range 8 {
			err := <-errs
			require.True(t, err == nil || errors.Is(err, backend.ErrUnavailable), "%v", err)
		}
	}
	_, err = s.Get(t.Context(), refused.ID)
	require.ErrorIs(t, err, backend.ErrNotFound, "surely not applied")
	_, err = s.Get(t.Context(), record(0).ID)
	require.NoError(t, err)
	require.NoError(t, s.Close())

	require.NoError(t, f.Close())
	require.NoError(t, os.Remove(ballast))
	s = open(t, file, sqlite.Options{})
	for _, rec := range append(written, record(0)) {
		_, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
	}
	_, err = s.Put(t.Context(), refused, backend.IfAbsent())
	require.NoError(t, err)
	_, err = s.Put(t.Context(), record(0), backend.IfVersion(first))
	require.NoError(t, err)
}

// On a disk that is "full" what ends something goes on, and what makes room.
func TestRevocationsGoOnFromTheReserve(t *testing.T) {
	dir, _ := image(t, 64)
	file := filepath.Join(dir, "fob.db")
	s := open(t, file, sqlite.Options{})
	keys := map[uint64]uint64{}
	for i := range uint64(1500) {
		rec := record(i)
		if i >= 1000 {
			rec.PurgeAt = 1
		}
		v, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
		keys[i] = v
	}
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	require.NoError(t, err)
	for {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &st))
		if st.Bavail*uint64(st.Bsize) <= 12<<20 {
			break
		}
		_, err := ballast.Write(make([]byte, 256<<10))
		require.NoError(t, err)
		require.NoError(t, ballast.Sync())
	}
	require.NoError(t, ballast.Close())
	_, err = s.Put(t.Context(), record(5000), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "disk nearly full")
	_, err = s.Put(t.Context(), record(1), backend.IfVersion(keys[1]))
	require.ErrorIs(t, err, backend.ErrUnavailable, "an ordinary change")
	require.ErrorIs(t, s.AddUsage(t.Context(), []backend.Usage{{ID: record(1).ID, N: 1}}), backend.ErrUnavailable)
	_, err = s.Get(t.Context(), record(5000).ID)
	require.ErrorIs(t, err, backend.ErrNotFound)

	urgent := backend.Urgent(t.Context())
	for i := range uint64(1000) {
		rec := record(i)
		rec.Body = []byte("revoked")
		_, err := s.Put(urgent, rec, backend.IfVersion(keys[i]))
		require.NoError(t, err)
		_, err = s.Put(urgent, record(10_000+i), backend.IfAbsent())
		require.NoError(t, err)
	}
	purged, err := s.Purge(t.Context(), time.Now(), 1000)
	require.NoError(t, err)
	require.Equal(t, 500, purged)
	require.NoError(t, s.Delete(t.Context(), record(10_000).ID, latest(t, s, 10_000)))
	require.NoError(t, s.Maintain(t.Context()))
	require.NoError(t, s.Close())
	s = open(t, file, sqlite.Options{})
	for i := range uint64(1000) {
		rec, err := s.Get(t.Context(), record(i).ID)
		require.NoError(t, err)
		require.Equal(t, "revoked", string(rec.Body))
	}
	require.NoError(t, os.Remove(ballast.Name()))
	_, err = s.Put(t.Context(), record(5000), backend.IfAbsent())
	require.NoError(t, err)
}

func latest(t *testing.T, s *sqlite.Store, n uint64) uint64 {
	t.Helper()
	rec, err := s.Get(t.Context(), record(n).ID)
	require.NoError(t, err)
	return rec.Version
}

// A write whose commit met an I/O error has an unknown outcome; nothing is
// answered as written that is not.
func TestADiskThatFails(t *testing.T) {
	dir, _ := image(t, 24)
	s := open(t, filepath.Join(dir, "fob.db"), sqlite.Options{BusyTimeout: 100 * time.Millisecond})
	_, err := s.Put(t.Context(), record(0), backend.IfAbsent())
	require.NoError(t, err)
	_, err = s.Get(t.Context(), record(0).ID)
	require.NoError(t, err)
	shutDown(t, dir)
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrIndeterminate)
	t.Log(err)
	for range 3 {
		_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	t.Log(err)
	require.NoError(t, s.Close())
}

// Close gives back every file.
func TestCloseLeavesNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "fob.db"), sqlite.Options{})
	_, err := s.Put(t.Context(), record(0), backend.IfAbsent())
	require.NoError(t, err)
	_, err = s.Get(t.Context(), record(0).ID)
	require.NoError(t, err)
	require.NoError(t, s.Maintain(t.Context()))
	s.FailCommits(errors.New("input/output error"))
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrIndeterminate)
	require.NotEmpty(t, openFiles(t, dir))
	require.NoError(t, s.Close())
	require.Empty(t, openFiles(t, dir))
}

// Also where a Watch is busy with what it was told.
func TestCloseDuringAWatchLeavesNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "fob.db"), sqlite.Options{})
	told, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- s.Watch(context.Background(), nil, func(backend.Batch) error {
			close(told)
			<-goOn
			return nil
		})
	}()
	<-told
	require.NoError(t, s.Close())
	require.Empty(t, openFiles(t, dir))
	_, err := os.Stat(filepath.Join(dir, "fob.db-wal"))
	require.ErrorIs(t, err, os.ErrNotExist, "everything is in the database")
	close(goOn)
	require.ErrorIs(t, <-ended, backend.ErrClosed)
}

func openFiles(t *testing.T, dir string) (names []string) {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}
