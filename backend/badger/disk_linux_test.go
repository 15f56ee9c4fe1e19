package badger_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
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
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	return dir, func() {
		t.Helper()
		run("umount", dir)
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

// Nothing acknowledged is lost when the power goes.
func TestPowerLoss(t *testing.T) {
	const rounds = 10
	dir, remount := image(t, 512)
	db := filepath.Join(dir, "db")
	acked := map[uint64]uint64{}
	for round := range rounds {
		cmd := child(db, fmt.Sprint(childPower, "=", round*1_000_000+1))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		seen, enough := 0, 300+700*round%3000
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
			acked[n] = v
			if seen++; seen == enough {
				shutDown(t, dir)
				require.NoError(t, cmd.Process.Kill()) // it would try to flush for ever
			}
		}
		_ = cmd.Wait()
		require.GreaterOrEqual(t, seen, enough, "round %d: the child ended by itself", round)
		remount()

		s, err := badger.Open(db, badger.Options{MinFreeBytes: 1 << 20})
		require.NoError(t, err, "round %d", round)
		for n, v := range acked {
			rec, err := s.Get(t.Context(), record(n).ID)
			require.NoError(t, err, "round %d: an acknowledged write is lost", round)
			require.GreaterOrEqual(t, rec.Version, v, "round %d: an acknowledged overwrite is undone", round)
		}
		require.NoError(t, s.Close())
	}
	t.Logf("%d rounds, %d records acknowledged, none lost", rounds, len(acked))
}

// A disk that fills up makes writes fail, and nothing worse: the process goes
// on, reads go on, and when there is room again writes do.
func TestADiskThatFillsUp(t *testing.T) {
	dir, _ := image(t, 400)
	s := open(t, filepath.Join(dir, "db"), badger.Options{})
	_, err := s.Put(t.Context(), record(0), backend.IfAbsent())
	require.NoError(t, err)

	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	require.NoError(t, err)
	fillUp := func(leave uint64) {
		for {
			var st unix.Statfs_t
			require.NoError(t, unix.Statfs(dir, &st))
			if free := st.Bavail * uint64(st.Bsize); free <= leave {
				return
			}
			_, err := f.Write(make([]byte, 1<<20))
			if errors.Is(err, unix.ENOSPC) {
				return
			}
			require.NoError(t, err)
			require.NoError(t, f.Sync())
		}
	}
	fillUp(250 << 20)
	var written []backend.Record
	for i := range uint64(200) {
		rec := record(1 + i)
		rec.Body = make([]byte, backend.MaxBody)
		_, err = s.Put(t.Context(), rec, backend.IfAbsent())
		if err != nil {
			break
		}
		written = append(written, rec)
	}
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "disk nearly full")
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
	fillUp(0) // really full now, by somebody else
	for range 50 {
		_, err = s.Put(t.Context(), record(5000), backend.IfAbsent())
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	_, err = s.Get(t.Context(), record(0).ID)
	require.NoError(t, err)
	require.NoError(t, s.Close())

	_, err = badger.Open(filepath.Join(dir, "db"), badger.Options{})
	require.ErrorIs(t, err, backend.ErrUnavailable, "there is no room to recover in")
	require.ErrorContains(t, err, "MiB free")
	require.NoError(t, f.Close())
	require.NoError(t, os.Remove(ballast))
	s = open(t, filepath.Join(dir, "db"), badger.Options{})
	for _, rec := range append(written, record(0)) {
		_, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
	}
	_, err = s.Put(t.Context(), record(5000), backend.IfAbsent())
	require.NoError(t, err, fmt.Sprint("after ", len(written), " large ones"))
}

// fillUp leaves that much free on the file system of dir, and returns how to free it.
func fillUp(t *testing.T, dir string, leave uint64) (empty func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	require.NoError(t, err)
	for {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &st))
		free := st.Bavail * uint64(st.Bsize)
		if free <= leave {
			break
		}
		n, err := f.Write(make([]byte, min(free-leave, 1<<20)))
		if errors.Is(err, unix.ENOSPC) && n == 0 {
			break
		}
		require.NoError(t, f.Sync())
	}
	require.NoError(t, f.Close())
	return func() { require.NoError(t, os.Remove(f.Name())) }
}

// On a disk that is "full" what ends something goes on, and what makes room: by
// overwriting, by making new records (marks and epochs), by removing.
func TestRevocationsGoOnFromTheReserve(t *testing.T) {
	dir, _ := image(t, 400)
	db := filepath.Join(dir, "db")
	s := open(t, db, badger.Options{})
	keys := fill(t, s, 0, 2000)
	for i := range uint64(500) {
		rec := record(10_000 + i)
		rec.PurgeAt = 1
		_, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	// 4 MiB above what is kept for opening.
	empty := fillUp(t, dir, badger.LastFree+4<<20)
	_, err := s.Put(t.Context(), record(5000), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "disk nearly full")
	_, err = s.Put(t.Context(), record(1), backend.IfVersion(keys[record(1).ID]))
	require.ErrorIs(t, err, backend.ErrUnavailable, "an ordinary change")
	require.ErrorIs(t, s.AddUsage(t.Context(), []backend.Usage{{ID: record(1).ID, N: 1}}), backend.ErrUnavailable)

	urgent := backend.Urgent(t.Context())
	for i := range uint64(500) {
		rec := record(i)
		rec.Body = []byte("revoked")
		_, err := s.Put(urgent, rec, backend.IfVersion(keys[rec.ID]))
		require.NoError(t, err)
		_, err = s.Put(urgent, record(20_000+i), backend.IfAbsent())
		require.NoError(t, err)
	}
	purged, err := s.Purge(t.Context(), time.Now(), 1000)
	require.NoError(t, err)
	require.Equal(t, 500, purged)
	require.NoError(t, s.Delete(t.Context(), record(1999).ID, keys[record(1999).ID]))
	require.NoError(t, s.Maintain(t.Context()))
	require.NoError(t, s.Close())

	s, err = badger.Open(db, badger.Options{})
	require.NoError(t, err, "what the reserve was used for leaves room to open")
	for i := range uint64(500) {
		rec, err := s.Get(t.Context(), record(i).ID)
		require.NoError(t, err)
		require.Equal(t, "revoked", string(rec.Body))
	}
	require.NoError(t, s.Close())
	empty()
	s = open(t, db, badger.Options{})
	_, err = s.Put(t.Context(), record(5000), backend.IfAbsent())
	require.NoError(t, err)
}

// What is too small for a store says so at its first Open, and a store that was opened
// once can be opened again, however far it has filled the disk.
func TestADiskThatIsTooSmall(t *testing.T) {
	for _, c := range []struct {
		megabytes int64
		least     uint64
		fits      bool
	}{
		{64, 1, false}, {80, 1, false}, {100, 1, false}, {200, 0, false}, {300, 290 << 20, false}, {150, 1, true}, {150, 100 << 20, true},
	} {
		t.Run(fmt.Sprint(c.megabytes, " MiB, ", c.least), func(t *testing.T) {
			dir, _ := image(t, c.megabytes)
			opts := badger.Options{MinFreeBytes: c.least}
			s, err := badger.Open(dir, opts) // the root of the volume, which holds lost+found
			if !c.fits {
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.ErrorContains(t, err, "needed for a new store (Options.MinFreeBytes)")
				return
			}
			require.NoError(t, err)
			n := uint64(0)
			for ctx := t.Context(); err == nil; n++ {
				rec := record(n)
				rec.Body = make([]byte, backend.MaxBody)
				if _, err = s.Put(ctx, rec, backend.IfAbsent()); err != nil && ctx == t.Context() {
					ctx = backend.Urgent(ctx)
					_, err = s.Put(ctx, rec, backend.IfAbsent())
				}
			}
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.NoError(t, s.Close())
			s, err = badger.Open(dir, opts)
			require.NoError(t, err, "the second Open, after %d records", n)
			require.NoError(t, s.Close())
		})
	}
}
