package site

import (
	"encoding/binary"
	"syscall"
)

// Inherit makes new files in dir readable by its owner alone, whatever the umask is and
// whoever makes them: with a default access control list (acl(5)), which takes the
// place of the umask. Where the file system has no such lists nothing is done: a
// directory of mode 0700 lets nobody at its files in any case.
func Inherit(dir string) {
	const version, userObj, groupObj, other, undefined = 2, 0x01, 0x04, 0x20, 0xffffffff
	list := binary.LittleEndian.AppendUint32(nil, version)
	for _, entry := range []struct{ tag, perm uint16 }{{userObj, 7}, {groupObj, 0}, {other, 0}} {
		list = binary.LittleEndian.AppendUint16(list, entry.tag)
		list = binary.LittleEndian.AppendUint16(list, entry.perm)
		list = binary.LittleEndian.AppendUint32(list, undefined)
	}
	_ = syscall.Setxattr(dir, "system.posix_acl_default", list, 0)
}
