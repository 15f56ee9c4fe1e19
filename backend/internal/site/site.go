// Package site checks where an engine keeps its files, so that what is wrong with it
// is said in words, with what to do, before the engine fails at it.
package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fobkit/fob/backend"
)

// Directory checks that dir is a directory in which this process can make and read
// files. It writes nothing. Its errors are backend.ErrUnavailable, and that of the
// operating system.
func Directory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return Explain(dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is a file, and a directory is wanted: name the directory that holds it, or another: %w",
			backend.ErrUnavailable, dir, syscall.ENOTDIR)
	}
	return Explain(dir, access(dir, canRead|canWrite|canSearch))
}

// File checks that path is a regular file which this process can read and write.
func File(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return Explain(path, err)
	}
	switch {
	case info.IsDir():
		return fmt.Errorf("%w: %s is a directory, and a file is wanted: name a file in it: %w", backend.ErrUnavailable, path, syscall.EISDIR)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is no regular file (%v)", backend.ErrUnavailable, path, info.Mode())
	}
	return Explain(path, access(path, canRead|canWrite))
}

// Explain says what an error of the operating system about path means and what to do.
// Nil stays nil.
func Explain(path string, err error) error {
	if err == nil {
		return nil
	}
	why := "cannot be used"
	switch {
	case errors.Is(err, syscall.EROFS):
		why = "is on a file system that is mounted read-only; a store is written to when it is opened too: mount it read-write"
	case errors.Is(err, fs.ErrPermission):
		why = "may not be written to by this process: " + rights(path)
	case errors.Is(err, fs.ErrExist):
		why = "cannot be made: a symbolic link that leads nowhere is in its place"
	case errors.Is(err, fs.ErrNotExist):
		why = "is not there: make its directory, or correct the name"
		if at := missing(path); at != path {
			why = fmt.Sprintf("cannot be reached: the directory %s is not there; make it, with mode 0700, or correct the name", at)
		}
	case errors.Is(err, syscall.ENOTDIR):
		why = "cannot be reached: a part of its name is a file and not a directory"
	case errors.Is(err, syscall.ELOOP):
		why = "cannot be reached: its symbolic links lead in a circle"
	case errors.Is(err, syscall.ENAMETOOLONG):
		why = "has too long a name"
	case errors.Is(err, syscall.ENOSPC), full(err):
		why = "is on a file system without space: free some"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		why = "cannot be opened: this process has too many files open (ulimit -n)"
	}
	return fmt.Errorf("%w: %s %s: %w", backend.ErrUnavailable, path, why, err)
}

// missing is the first part of path that is not there.
func missing(path string) string {
	for {
		parent := filepath.Dir(path)
		if _, err := os.Lstat(parent); parent == path || !errors.Is(err, fs.ErrNotExist) {
			return path
		}
		path = parent
	}
}

// rights says whose path is, or the directory that it lies in, and who we are.
func rights(path string) string {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil && at != filepath.Dir(at) {
			continue
		}
		who := "this process is user " + fmt.Sprint(os.Geteuid())
		if err != nil {
			return who
		}
		if uid, ok := owner(info); ok {
			who += fmt.Sprintf(", and %s belongs to user %d", at, uid)
		}
		return fmt.Sprintf("%s with mode %v; give it to this user (chown), or run as the other", who, info.Mode())
	}
}

// Private takes from others what they may do with path, whose mode is then at most
// most (0700 or 0600). With group, the group keeps what it has. It reports the mode
// that it took away something from, and fails if it cannot.
//
// A directory that has the sticky bit belongs to everybody (/tmp): it is refused.
func Private(path string, most fs.FileMode, group bool) (had fs.FileMode, changed bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false, Explain(path, err)
	}
	had = info.Mode()
	if had&fs.ModeSticky != 0 && had.Perm()&0o022 != 0 {
		return had, false, fmt.Errorf("%w: %s is shared by everybody (mode %v): take a directory of the store's own, below it or elsewhere",
			backend.ErrUnavailable, path, had)
	}
	if group {
		most |= most >> 3 & 0o070
	}
	keep := had.Perm() & most
	if keep == had.Perm() {
		return had, false, nil
	}
	if err := os.Chmod(path, keep|had&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return had, false, fmt.Errorf("%w: %s can be read or written by others (mode %v), and this process cannot change that (%s): make it %04o, take one of the store's own below it, or set Options.InsecureGroupAccess where its group alone is to be trusted: %w",
			backend.ErrUnavailable, path, had, rights(path), most, err)
	}
	return had, true, nil
}
