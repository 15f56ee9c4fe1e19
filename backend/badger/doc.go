// Package badger is the embedded default: a store in a directory of its own, on
// BadgerDB, with nothing to operate.
//
// # Durability
//
// A write that returned nil is on disk: it survives kill -9 and power loss.
// Concurrent writes share one synced commit, so that many writers cost little
// more than one. An I/O error at a commit leaves its outcome unknown: the writes
// in it fail with backend.ErrIndeterminate, and the store takes no further call
// but Close until it is opened again (see Options.ReadAfterFailure), because
// what can be read after a failed sync need not be on disk.
//
// # One process
//
// A directory belongs to one process. A second one is refused by Open, also for
// reading. Where several processes share credentials, use a store that is a
// server, or a database file made for it.
//
// # Disk space
//
// BadgerDB writes through memory maps, and a full disk would end the process
// with SIGBUS. So new records and ordinary changes are refused with
// backend.ErrUnavailable while less than Options.MinFreeBytes (256 MiB) is free. What
// ends something (fob.Manager's Revoke, Disable, RevokeSubject and RevokeTokens, the end
// of a session whose secret was replayed) and what makes room (Purge, Delete, Maintain)
// goes on from that reserve, until 80 MiB are free, or more where the next flush leads
// to a compaction, which must have room. Then everything is refused: Open needs 64 MiB
// to recover in, and refuses where there is less. A new store needs MinFreeBytes. Reads
// go on in any case. The reserve is free space, which others on the same file system can
// take: give the store one of its own, or a quota to the others.
//
// An empty store shows about 68 MB in a listing of its files, which are sparse; they
// take up almost nothing.
//
// # The directory
//
// It is the store's alone: Open, Restore and RotateEncryptionKey refuse one that holds
// something else (ErrNotAStore) and change nothing in it. In the root of a volume,
// lost+found and the like do no harm. It is made 0700 and its files 0600, whatever the
// umask; on Linux a default access control list on the directory does that for files
// that are made later. What others may do with one that is there is taken from them, and
// where that cannot be done, because it is another user's, it is refused: see
// Options.InsecureGroupAccess.
//
// # What else to know
//
// BadgerDB ends the process (log.Fatalf) on internal assertions; no caller can
// prevent it. Its files must be on a local file system: network file systems
// do not keep the promises of flock and mmap. Purged records give their space
// back at compaction, which the store asks for by itself when it is worthwhile.
//
// The layout of the directory has a number, 2 since records have labels. Open brings up a
// store of layout 1, also one that was restored from an older backup: nothing is written
// again but the number. There is no way back: a version that knows layout 1 alone refuses
// the store from then on. So make a backup before. A later layout is refused, by an error
// that names both.
//
// Backup writes a sealed stream. Restore brings back the past, and with it
// credentials that were revoked since: re-apply later revocations before the
// store is used (fob.Manager can export and import them).
package badger
