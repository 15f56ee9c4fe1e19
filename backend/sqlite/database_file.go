package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/site"
)

// createMu is held while this process has a database file open by other means than SQLite.
var createMu sync.Mutex

// prepareFile makes the file, so that nobody else can read it, and returns its full
// name. It fails, and makes nothing, where SQLite could not work.
func prepareFile(path string, opts Options) (full string, err error) {
	switch {
	case path == "" || strings.HasPrefix(path, ":memory:"):
		return "", fmt.Errorf("%w: a database in memory has no file; use backend/memory for that", ErrSettings)
	case strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("%w: Open takes a file name, not a URI; for a connection string, use sql.Open, Migrate and New", ErrSettings)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%w: a file name with a NUL in it", ErrSettings)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("sqlite: open: %w", err)
	}
	// SQLite makes its log and its index beside the file.
	if err := site.Directory(filepath.Dir(path)); err != nil {
		return "", fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	// With O_EXCL a file that is there is not opened: closing it again would drop the
	// locks that another Store in this process has on it (POSIX, fcntl). Nor may one have
	// locks on a new file before that is closed here.
	createMu.Lock()
	defer createMu.Unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		err = site.Explain(path, f.Close())
	case errors.Is(err, os.ErrExist):
		err = checkExisting(path, opts)
	default:
		err = site.Explain(path, err)
	}
	if err != nil {
		return "", fmt.Errorf("sqlite: open: %w", err)
	}
	return path, nil
}

// checkExisting checks a file that is there, and what SQLite has left beside it: some may be
// of another user, who ran the program once.
func checkExisting(path string, opts Options) error {
	if err := site.File(path); err != nil {
		return err
	}
	target := linkTarget(path)
	if err := site.Directory(filepath.Dir(target)); err != nil {
		return err
	}
	for _, name := range databaseFiles(target)[1:] {
		if err := site.File(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if info, err := os.Stat(target); err == nil {
		others := info.Mode().Perm() & 0o077
		if opts.InsecureGroupAccess {
			others &= 0o007
		}
		if others != 0 {
			opts.Logger.Warn("sqlite: the database file can be read or written by others; it is made 0600 if it is a store's (see Options.InsecureGroupAccess)",
				"file", path, "mode", info.Mode().String())
		}
	}
	return nil
}

// linkTarget is where SQLite finds the file: it follows symbolic links, and makes the
// others beside what they lead to.
func linkTarget(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// databaseFiles are the database, its log and its index.
func databaseFiles(path string) []string { return []string{path, path + "-wal", path + "-shm"} }

// tightenFiles takes the files from others. It comes after Migrate, which knows that they are
// ours.
func tightenFiles(path string, opts Options) error {
	for _, name := range databaseFiles(linkTarget(path)) {
		if _, _, err := site.Private(name, 0o600, opts.InsecureGroupAccess); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// dataSourceName is how the driver names a file.
func dataSourceName(path string) string {
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") { // a drive letter
		slashed = "/" + slashed
	}
	return (&url.URL{Scheme: "file", Path: slashed}).String()
}

// low says that the disk is nearly full, where it is: nothing but what is urgent may
// be written then.
func (s *Store) low() error {
	var free uint64
	if s.hooks.freeBytes != nil {
		free = s.hooks.freeBytes()
	} else {
		var err error
		if free, err = site.Free(s.dir); err != nil {
			return nil // SQLite itself says when the disk is full
		}
	}
	if free >= s.opts.MinFreeBytes {
		return nil
	}
	return fmt.Errorf("sqlite: disk nearly full: %d MiB free, %d MiB are kept: %w", free>>20, s.opts.MinFreeBytes>>20, backend.ErrUnavailable)
}
