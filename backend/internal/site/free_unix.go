//go:build linux || darwin || freebsd

package site

import "syscall"

// Free is how many bytes this process may still write on the file system of path.
func Free(path string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	if st.Bavail <= 0 { // FreeBSD counts below zero what root has used of its reserve
		return 0, nil
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
