package badger_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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
