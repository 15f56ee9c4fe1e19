package badger_test

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// nobody is a user without rights.
const nobody = 65534

// asNobody runs the child that opens dir as another user, and returns what it says.
func asNobody(t *testing.T, dir string, env ...string) string {
	t.Helper()
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	place := openTo(t)
	program := filepath.Join(place, "test")
	require.NoError(t, os.WriteFile(program, binary, 0o755))
	cmd := child(dir, append(env, childOpens+"=1")...)
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

// tmpfs mounts a file system in memory.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", dir).Run()) })
	return dir
}

// What is wrong with the place is said, with what to do, by Open and Restore alike.
func TestWhatIsWrongWithThePlaceIsSaid(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	key := badger.BackupKey(bytes.Repeat([]byte{9}, 32))
	var backup bytes.Buffer
	require.NoError(t, s.Backup(t.Context(), &backup, key))
	for name, c := range map[string]struct {
		dir  func(t *testing.T) string
		want error
		says string
	}{
		"a file": {func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			return file
		}, syscall.ENOTDIR, "is a file, and a directory is wanted"},
		"below a file": {func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			return filepath.Join(file, "db")
		}, syscall.ENOTDIR, "a part of its name is a file"},
		"a link that leads in a circle": {func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(link, link))
			return filepath.Join(link, "db")
		}, syscall.ELOOP, "lead in a circle"},
		"a link to nowhere": {func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "none"), link))
			return link
		}, backend.ErrUnavailable, "a symbolic link that leads nowhere"},
		"a read-only mount": {func(t *testing.T) string { return tmpfs(t, "ro") }, syscall.EROFS, "mounted read-only"},
		"in a read-only mount": {func(t *testing.T) string {
			return filepath.Join(tmpfs(t, "ro"), "db")
		}, syscall.EROFS, "mounted read-only"},
		"a small mount": {func(t *testing.T) string { return tmpfs(t, "size=32m") }, backend.ErrUnavailable, "MiB free"},
		"everybody's": {func(t *testing.T) string {
			dir := t.TempDir()
			require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
			return dir
		}, backend.ErrUnavailable, "shared by everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.dir(t)
			_, err := badger.Open(dir, badger.Options{})
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.ErrorContains(t, err, c.says)
			err = badger.Restore(t.Context(), dir, key, badger.Options{}, bytes.NewReader(backup.Bytes()))
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			left, _ := os.ReadDir(dir)
			require.Empty(t, left, "nothing is written")
		})
	}
}

// The same where rights are lacking, or files are another user's.
func TestWhatRightsAreLackingIsSaid(t *testing.T) {
	needRoot(t)
	base := openTo(t)
	dir := func(name string, uid, gid int, mode os.FileMode) string {
		d := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(d, 0o700))
		require.NoError(t, os.Chown(d, uid, gid))
		require.NoError(t, os.Chmod(d, mode))
		return d
	}
	says := asNobody(t, dir("root", 0, 0, 0o700))
	require.Contains(t, says, "this process is user 65534, and")
	require.Contains(t, says, "belongs to user 0 with mode drwx------")
	require.Contains(t, says, "permission denied")
	says = asNobody(t, filepath.Join(dir("parent", 0, 0, 0o755), "db"))
	require.Contains(t, says, "belongs to user 0 with mode drwxr-xr-x")

	mine := dir("mine", nobody, nobody, 0o777)
	require.Equal(t, "<nil>", asNobody(t, mine))
	info, err := os.Stat(mine)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	// Once run as root, as it happens.
	require.NoError(t, os.Chown(filepath.Join(mine, "MANIFEST"), 0, 0))
	says = asNobody(t, mine)
	require.Contains(t, says, "MANIFEST may not be written to by this process")
	require.Contains(t, says, "belongs to user 0")

	// As a volume is given to a container by its group.
	volume := dir("volume", 0, nobody, 0o770|fs.ModeSetgid)
	says = asNobody(t, volume)
	require.Contains(t, says, "can be read or written by others")
	require.Contains(t, says, "InsecureGroupAccess")
	left, err := os.ReadDir(volume)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Equal(t, "<nil>", asNobody(t, volume, childGroup+"=1"))
	require.Equal(t, "<nil>", asNobody(t, filepath.Join(dir("below", 0, nobody, 0o770|fs.ModeSetgid), "db")), "a directory of its own")
}

// modes are the access rights of all files in dir.
func modes(t *testing.T, dir string) map[os.FileMode]int {
	t.Helper()
	found := map[os.FileMode]int{}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		found[info.Mode().Perm()]++
	}
	return found
}

// Whatever the umask, others get at nothing: in a new directory, in one that they could
// get at, in files that were theirs to read, in what is made later, and in what is
// restored.
func TestFilesAreTheOwnersWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022} {
		old := syscall.Umask(umask)
		t.Cleanup(func() { syscall.Umask(old) })
		base := t.TempDir()
		made, existing, restored := filepath.Join(base, "a", "made"), filepath.Join(base, "existing"), filepath.Join(base, "restored")
		require.NoError(t, os.Mkdir(existing, 0o777))
		require.NoError(t, os.Chmod(existing, 0o777))
		require.NoError(t, os.Mkdir(restored, 0o777))
		check := func(dirs ...string) {
			t.Helper()
			for _, dir := range dirs {
				info, err := os.Stat(dir)
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), dir)
				found := modes(t, dir)
				require.Equal(t, []int{len(found), found[0o600]}, []int{1, found[0o600]}, "%s: %v", dir, found)
			}
		}
		key := badger.BackupKey(bytes.Repeat([]byte{9}, 32))
		for _, dir := range []string{made, existing} {
			s := open(t, dir, badger.Options{})
			check(dir)
			var wg sync.WaitGroup
			for i := range uint64(300) { // more than one memtable holds
				wg.Go(func() {
					rec := record(i)
					rec.Body = make([]byte, backend.MaxBody)
					if _, err := s.Put(context.Background(), rec, backend.IfAbsent()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			check(dir)
			var backup bytes.Buffer
			require.NoError(t, s.Backup(t.Context(), &backup, key))
			require.NoError(t, s.Close())
			check(dir)
			if dir == existing {
				require.NoError(t, badger.Restore(t.Context(), restored, key, badger.Options{}, &backup))
				check(restored)
			}
		}
		// As an earlier version has left it.
		require.NoError(t, os.Chmod(made, 0o755))
		files, err := os.ReadDir(made)
		require.NoError(t, err)
		for _, f := range files {
			require.NoError(t, os.Chmod(filepath.Join(made, f.Name()), 0o644))
		}
		s := open(t, made, badger.Options{})
		check(made)
		require.NoError(t, s.Close())
		require.NoError(t, badger.RotateEncryptionKey(made, nil, bytes.Repeat([]byte{1}, 32)))
		check(made)
	}
}

// A place that holds something else, or nothing, is not taken for a store: by no
// operation, and nothing is changed there.
func TestAPlaceThatIsNoStore(t *testing.T) {
	key, next := badger.EncryptionKey(bytes.Repeat([]byte{1}, 32)), badger.EncryptionKey(bytes.Repeat([]byte{2}, 32))
	store := func(t *testing.T) string {
		dir := t.TempDir()
		s := open(t, dir, badger.Options{EncryptionKey: key})
		fill(t, s, 0, 10)
		require.NoError(t, s.Close())
		return dir
	}
	for name, c := range map[string]struct {
		dir     func(t *testing.T) string
		old     badger.EncryptionKey
		want    error
		openAs  error // nil: Open makes a store there, or opens it
		missing bool
	}{
		"missing":    {func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, nil, fs.ErrNotExist, nil, true},
		"empty":      {func(t *testing.T) string { return t.TempDir() }, nil, badger.ErrNotAStore, nil, false},
		"lost+found": {func(t *testing.T) string { return withFile(t, t.TempDir(), "lost+found/x") }, nil, badger.ErrNotAStore, nil, false},
		"other files": {func(t *testing.T) string { return withFile(t, t.TempDir(), "notes.txt") },
			nil, badger.ErrNotAStore, badger.ErrNotAStore, false},
		"the parent": {func(t *testing.T) string { return filepath.Dir(store(t)) }, key, badger.ErrNotAStore, badger.ErrNotAStore, false},
		"a manifest of something else": {func(t *testing.T) string {
			return withFile(t, withFile(t, t.TempDir(), "MANIFEST"), "KEYREGISTRY")
		}, nil, badger.ErrNotAStore, badger.ErrNotAStore, false},
		"no manifest": {func(t *testing.T) string {
			dir := store(t)
			require.NoError(t, os.Remove(filepath.Join(dir, "MANIFEST")))
			return dir
		}, key, badger.ErrNotAStore, badger.ErrNotAStore, false},
		"no data keys": {func(t *testing.T) string {
			dir := store(t)
			require.NoError(t, os.Remove(filepath.Join(dir, "KEYREGISTRY")))
			return dir
		}, key, badger.ErrNotAStore, badger.ErrNotAStore, false},
		"another key":               {store, next, badger.ErrEncryptionKey, badger.ErrEncryptionKey, false},
		"no key":                    {store, nil, badger.ErrEncryptionKey, badger.ErrEncryptionKey, false},
		"a restore that was broken": {func(t *testing.T) string { return withFile(t, store(t), "RESTORE-UNFINISHED") }, key, backend.ErrUnavailable, backend.ErrUnavailable, false},
		"another application's": {func(t *testing.T) string {
			dir := t.TempDir()
			db, err := badgerdb.Open(badgerdb.DefaultOptions(dir).WithLogger(nil))
			require.NoError(t, err)
			require.NoError(t, db.Update(func(txn *badgerdb.Txn) error { return txn.Set([]byte("theirs"), []byte("x")) }))
			require.NoError(t, db.Close())
			return dir
		}, nil, badger.ErrNotAStore, badger.ErrNotAStore, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.dir(t)
			before := snapshot(t, dir)
			require.ErrorIs(t, badger.RotateEncryptionKey(dir, c.old, next), c.want)
			require.Equal(t, before, snapshot(t, dir), "nothing is written")
			s, err := badger.Open(dir, badger.Options{EncryptionKey: c.old})
			if c.openAs != nil {
				require.ErrorIs(t, err, c.openAs)
				if name != "another application's" {
					require.Equal(t, before, snapshot(t, dir), "nothing is written")
				}
				return
			}
			require.NoError(t, err, "and what was refused can still become a store")
			require.NoError(t, s.Close())
			require.NoError(t, badger.RotateEncryptionKey(dir, c.old, next))
			s = open(t, dir, badger.Options{EncryptionKey: next})
			_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
			require.NoError(t, err)
		})
	}
	t.Run("open", func(t *testing.T) {
		dir := t.TempDir()
		_ = open(t, dir, badger.Options{EncryptionKey: key})
		require.ErrorIs(t, badger.RotateEncryptionKey(dir, key, next), backend.ErrUnavailable)
	})
	t.Run("restore", func(t *testing.T) {
		s := open(t, t.TempDir(), badger.Options{})
		seal := badger.BackupKey(bytes.Repeat([]byte{9}, 32))
		var backup bytes.Buffer
		require.NoError(t, s.Backup(t.Context(), &backup, seal))
		used := withFile(t, t.TempDir(), "x")
		require.ErrorIs(t, badger.Restore(t.Context(), used, seal, badger.Options{}, &backup), backend.ErrInvalid)
		none := filepath.Join(t.TempDir(), "none")
		require.ErrorIs(t, badger.Restore(t.Context(), none, seal[:31], badger.Options{}, &backup), backend.ErrInvalid)
		require.NoDirExists(t, none)
		root := withFile(t, t.TempDir(), "lost+found/x")
		require.NoError(t, badger.Restore(t.Context(), root, seal, badger.Options{}, &backup), "the root of a volume")
		_ = open(t, root, badger.Options{})
		require.FileExists(t, filepath.Join(root, "lost+found", "x"))
	})
}

func withFile(t *testing.T, dir, name string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("something"), 0o600))
	return dir
}

// snapshot is every file below dir, and what is in it.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[name] = ""
			return nil
		}
		content, err := os.ReadFile(name)
		all[name] = string(content)
		return err
	})
	require.NoError(t, err)
	return all
}

// A store that was not closed, after a crash say, is left as it is too: it is recovered
// first, by Open.
func TestTheKeyOfAStoreThatWasNotClosed(t *testing.T) {
	key, next := badger.EncryptionKey(bytes.Repeat([]byte{1}, 32)), badger.EncryptionKey(bytes.Repeat([]byte{2}, 32))
	dir, crashed := t.TempDir(), t.TempDir()
	s := open(t, dir, badger.Options{EncryptionKey: key})
	fill(t, s, 0, 10)
	require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
	before := snapshot(t, crashed)
	err := badger.RotateEncryptionKey(crashed, key, next)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "open it and close it first")
	require.True(t, maps.Equal(before, snapshot(t, crashed)), "nothing is written")
	require.NoError(t, open(t, crashed, badger.Options{EncryptionKey: key}).Close())
	require.NoError(t, badger.RotateEncryptionKey(crashed, key, next))
	s = open(t, crashed, badger.Options{EncryptionKey: next})
	_, err = s.Get(t.Context(), record(3).ID)
	require.NoError(t, err)
}
