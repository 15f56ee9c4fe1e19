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
// with SIGBUS. So writes are refused with backend.ErrUnavailable while less than
// Options.MinFreeBytes is free, and Open refuses when there is too little to
// recover in. Reads go on. An empty store shows about 68 MB in a listing of its
// files, which are sparse; they take up almost nothing.
//
// # What else to know
//
// BadgerDB ends the process (log.Fatalf) on internal assertions; no caller can
// prevent it. Its files must be on a local file system: network file systems
// do not keep the promises of flock and mmap. Purged records give their space
// back at compaction, which the store asks for by itself when it is worthwhile.
//
// Backup writes a sealed stream. Restore brings back the past, and with it
// credentials that were revoked since: re-apply later revocations before the
// store is used (fob.Manager can export and import them).
package badger
