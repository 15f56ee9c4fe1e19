// Package sqlite is the store for several processes on one machine: a database
// file, on SQLite in pure Go (modernc.org/sqlite), with nothing to operate.
//
//	store, err := sqlite.Open("/var/lib/app/credentials.db", sqlite.Options{})
//
// # When to choose it
//
// Badger writes faster, and its directory belongs to one process. Choose SQLite when
// a web server, a command line tool and a worker on one host share credentials, when
// the application has a SQLite database already (New borrows it, and keeps to tables
// whose names begin with fob_), or when ordinary tools shall read the file. With more
// than one machine, use a store that is a server: the processes must be on one host,
// for they share memory beside the file, and the file must be on a local file system.
// On NFS, SMB and the like SQLite's locks and shared memory do not work, and records are lost.
//
// # Durability
//
// The file is in WAL mode and each commit is synced (synchronous=FULL), on the store's
// own connections, whatever the caller's pool is set to: a write that returned nil
// survives kill -9 and power loss. An I/O error at a commit leaves its outcome unknown
// (backend.ErrIndeterminate); the store goes on with another connection. A full disk is
// backend.ErrUnavailable: surely not written. Every other connection to the file, in
// any process, must have synchronous=NORMAL at least: with OFF it can lose, at power
// loss, what this store has committed. New looks at the pool that it is given.
//
// The operations that wait in a process share one transaction and one sync, so that 64
// writers do ten times what one does. Between processes the write lock goes to whoever
// finds it free; a call waits for it up to Options.BusyTimeout, then fails with
// backend.ErrUnavailable. Readers wait for nobody.
//
// # The feed
//
// A Watch looks at PRAGMA data_version: at once after a commit of this Store, some
// milliseconds after another process has written to the file, of which the system tells
// (inotify, on Linux), and as often as a proof is wanted (backend.WithProofEvery). Where the
// system does not tell, or a look finds a change of which it did not, the Watch looks every
// Options.PollEvery, and tells of a change within about that time. The feed remembers
// the last 100,000 changes, across restarts. A token names the change that it follows
// and a random number of that change's transaction, so that a file restored from a
// copy is noticed even when it has been written to again: that is a Reset.
//
// # Backup
//
// Copy with VACUUM INTO 'copy.db', or the .backup command of the sqlite3 program; a
// plain copy of the file misses what is still in its log (the file ending in -wal). A
// copy holds digests, owners and times, as the file does: guard it alike. Restoring
// one brings back the past, and with it credentials that were revoked since: keep
// what fob.Manager.ExportRevocations writes apart from the database, and give it to
// ApplyRevocations before the restored file is used. Restore while no process has the file open.
//
// # Disk space
//
// While less than Options.MinFreeBytes (16 MiB) is free, new records and ordinary changes
// are refused with backend.ErrUnavailable; what ends something and what makes room goes
// on from that reserve, until SQLite itself finds the disk full (SQLITE_FULL: surely not
// written). The write-ahead log is what grows most: it is moved into the database at each
// 1,000 pages, 4 MiB, unless a reader that stays in one transaction prevents it. A
// max_page_count that is reached stops what ends something too, for the store cannot see
// it: set none, or one that is far off. The reserve is free space, which others on the
// same file system can take.
//
// # What else to know
//
// In a process that uses the file, do not open and close it by other means than
// SQLite, to copy or to hash it, say: closing any descriptor drops the process's locks
// (POSIX advisory locks; modernc.org/sqlite.OFDLocking ends that on Linux). Nor rename
// or remove it while it is open. The file has mode 0600, and its log and index the same:
// what others may do with one that is there is taken from them (see
// Options.InsecureGroupAccess). A copy that VACUUM INTO makes has the mode of the umask:
// make it in a directory of mode 0700. A damaged page makes reads that need it fail with backend.ErrCorrupt and writes
// with backend.ErrUnavailable. N of a backend.Usage stops at the largest int64. Purged
// records leave their pages in the file, for others to use; VACUUM gives them back.
package sqlite
