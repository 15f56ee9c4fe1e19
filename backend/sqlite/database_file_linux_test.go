package sqlite_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

// nobody is a user without rights.
const nobody = 65534

// asNobody runs the child that opens the file as another user, and returns what it says.
func asNobody(t *testing.T, file, does string) string {
	t.Helper()
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	place := openTo(t)
	program := filepath.Join(place, "test")
	require.NoError(t, os.WriteFile(program, binary, 0o755))
	cmd := child(file, does, 0)
	cmd.Path, cmd.Dir = program, place
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// openTo makes a directory of the test that everybody can look into, also where that of
// all temporary files is closed to others.
func openTo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, made := range []string{dir, filepath.Dir(dir)} {
		require.NoError(t, os.Chmod(made, 0o755))
	}
	for at := filepath.Dir(dir); at != "/"; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		require.NoError(t, err)
		if info.Mode()&0o001 != 0 {
			continue
		}
		dir, err = os.MkdirTemp("/var/tmp", "fob-test-")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		require.NoError(t, os.Chmod(dir, 0o755))
		break
	}
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to mount, and to be another user, needs root")
	}
}

// closed is the file of a store that was used and closed.
func closed(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "fob.db")
	s, err := sqlite.Open(file, sqlite.Options{})
	require.NoError(t, err)
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	return file
}

// readOnly mounts a file system for reading, with a store in it.
func readOnly(t *testing.T) (dir string) {
	t.Helper()
	needRoot(t)
	dir = t.TempDir()
	mount := func(args ...string) {
		out, err := exec.Command("mount", append(args, dir)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	mount("-t", "tmpfs", "tmpfs")
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", dir).Run()) })
	_ = closed(t, dir)
	mount("-o", "remount,ro")
	return dir
}

// What is wrong with the place is said, with what to do, and nothing is made there.
func TestWhatIsWrongWithThePlaceIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		file func(t *testing.T) string
		want error
		says string
	}{
		"a directory":         {func(t *testing.T) string { return t.TempDir() }, syscall.EISDIR, "is a directory, and a file is wanted"},
		"a directory missing": {func(t *testing.T) string { return filepath.Join(t.TempDir(), "none", "fob.db") }, fs.ErrNotExist, "none is not there"},
		"below a file": {func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			return filepath.Join(file, "fob.db")
		}, syscall.ENOTDIR, "is a file"},
		"a pipe": {func(t *testing.T) string {
			pipe := filepath.Join(t.TempDir(), "pipe")
			require.NoError(t, syscall.Mkfifo(pipe, 0o600))
			return pipe
		}, backend.ErrUnavailable, "is no regular file"},
		"a link that leads in a circle": {func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(link, link))
			return link
		}, syscall.ELOOP, "lead in a circle"},
		"a read-only mount":        {func(t *testing.T) string { return filepath.Join(readOnly(t), "fob.db") }, syscall.EROFS, "mounted read-only"},
		"new in a read-only mount": {func(t *testing.T) string { return filepath.Join(readOnly(t), "new.db") }, syscall.EROFS, "mounted read-only"},
		"a link into a read-only mount": {func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(filepath.Join(readOnly(t), "fob.db"), link))
			return link
		}, syscall.EROFS, "mounted read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			file := c.file(t)
			before, _ := os.ReadDir(filepath.Dir(file))
			_, err := sqlite.Open(file, sqlite.Options{})
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.ErrorContains(t, err, c.says)
			after, _ := os.ReadDir(filepath.Dir(file))
			require.Len(t, after, len(before), "nothing is made")
		})
	}
	// A pool does not say where its file is; SQLite's own answer is explained.
	t.Run("a pool on a read-only mount", func(t *testing.T) {
		db := pool(t, "file:"+filepath.Join(readOnly(t), "fob.db"))
		err := sqlite.Migrate(t.Context(), db)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorContains(t, err, "mounted read-only")
		_, err = sqlite.New(t.Context(), db, sqlite.Options{})
		require.ErrorContains(t, err, "mounted read-only")
	})
	t.Run("locked", func(t *testing.T) {
		file := closed(t, t.TempDir())
		db := pool(t, "file:"+file+"?_pragma=locking_mode(EXCLUSIVE)")
		db.SetMaxOpenConns(1)
		execute(t, db, "BEGIN EXCLUSIVE")
		execute(t, db, "UPDATE fob_meta SET v = v")
		_, err := sqlite.Open(file, sqlite.Options{BusyTimeout: time.Millisecond})
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorContains(t, err, "another connection holds the database")
	})
}

// The same where rights are lacking, or files are another user's.
func TestWhatRightsAreLackingIsSaid(t *testing.T) {
	needRoot(t)
	base := openTo(t)
	place := func(name string, dir, file os.FileMode) string {
		d := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(d, 0o700))
		db := closed(t, d)
		require.NoError(t, os.Chmod(db, file))
		require.NoError(t, os.Chmod(d, dir))
		return db
	}
	says := asNobody(t, place("directory", 0o755, 0o666), "open")
	require.Contains(t, says, "this process is user 65534")
	require.Contains(t, says, "belongs to user 0 with mode drwxr-xr-x")
	require.Contains(t, says, "permission denied")
	says = asNobody(t, place("closed", 0o700, 0o600), "open")
	require.Contains(t, says, "belongs to user 0 with mode drwx------")
	says = asNobody(t, place("file", 0o777, 0o600), "open")
	require.Contains(t, says, "fob.db belongs to user 0 with mode -rw-------")

	file := place("log", 0o777, 0o600)
	require.NoError(t, os.Chown(file, nobody, nobody))
	require.NoError(t, os.WriteFile(file+"-wal", nil, 0o600)) // once run as root, as it happens
	require.Contains(t, asNobody(t, file, "open"), "fob.db-wal belongs to user 0")
	require.NoError(t, os.Remove(file+"-wal"))
	require.Equal(t, "<nil>", asNobody(t, file, "open"))

	// Processes of one group.
	file = place("group", 0o770, 0o660)
	for _, name := range []string{file, filepath.Dir(file)} {
		require.NoError(t, os.Chown(name, 0, nobody))
	}
	says = asNobody(t, file, "open")
	require.Contains(t, says, "can be read or written by others")
	require.Contains(t, says, "InsecureGroupAccess")
	require.Equal(t, "<nil>", asNobody(t, file, "open for the group"))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
}

// Whatever the umask, others get at nothing: in new files, and in those that were
// theirs to read; and an application's own database stays as it is.
func TestFilesAreTheOwnersWhateverTheUmask(t *testing.T) {
	check := func(want os.FileMode, file string, n int) {
		t.Helper()
		found, err := filepath.Glob(file + "*")
		require.NoError(t, err)
		require.Len(t, found, n)
		for _, name := range found {
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.Equal(t, want, info.Mode().Perm(), name)
		}
	}
	for _, umask := range []int{0, 0o022} {
		old := syscall.Umask(umask)
		t.Cleanup(func() { syscall.Umask(old) })
		file := filepath.Join(t.TempDir(), "fob.db")
		s := open(t, file, sqlite.Options{})
		_, err := s.Put(t.Context(), record(1), backend.IfAbsent())
		require.NoError(t, err)
		check(0o600, file, 3)
		require.NoError(t, s.Close())

		// As cp or VACUUM INTO has left it, with a log as after a crash.
		require.NoError(t, os.Chmod(file, 0o644))
		db := pool(t, "file:"+file)
		execute(t, db, "UPDATE fob_meta SET v = v")
		check(0o644, file, 3)
		var logged bytes.Buffer
		s = open(t, file, sqlite.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		_, err = s.Put(context.Background(), record(2), backend.IfAbsent())
		require.NoError(t, err)
		check(0o600, file, 3)
		require.Contains(t, logged.String(), "0600")
		require.NoError(t, s.Close())

		require.NoError(t, os.Chmod(file, 0o666))
		s = open(t, file, sqlite.Options{InsecureGroupAccess: true})
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o660), info.Mode().Perm(), "the group keeps what it had")
		require.NoError(t, s.Close())

		theirs := filepath.Join(t.TempDir(), "app.db")
		require.NoError(t, os.WriteFile(theirs, nil, 0o664))
		require.NoError(t, os.Chmod(theirs, 0o664))
		app := pool(t, "file:"+theirs)
		execute(t, app, "CREATE TABLE theirs (a)")
		before, err := os.ReadFile(theirs)
		require.NoError(t, err)
		_, err = sqlite.Open(theirs, sqlite.Options{})
		require.ErrorIs(t, err, sqlite.ErrSettings)
		after, err := os.ReadFile(theirs)
		require.NoError(t, err)
		require.Equal(t, before, after, "its journal mode too is as it was")
		require.NoError(t, sqlite.Migrate(t.Context(), app))
		s, err = sqlite.New(t.Context(), app, sqlite.Options{})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		info, err = os.Stat(theirs)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o664), info.Mode().Perm())
	}
}
