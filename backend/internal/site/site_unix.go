//go:build unix

package site

import (
	"errors"
	"io/fs"
	"syscall"
)

// What access asks for, as access(2) does.
const (
	canRead   = 4
	canWrite  = 2
	canSearch = 1
)

func access(path string, how uint32) error { return syscall.Access(path, how) }

func full(err error) bool { return errors.Is(err, syscall.EDQUOT) }

func owner(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}
