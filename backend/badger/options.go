package badger

import (
	"fmt"
	"log/slog"

	badgerdb "github.com/dgraph-io/badger/v4"
	bopts "github.com/dgraph-io/badger/v4/options"
)

// Options is the settings of a Store. The zero Options is the recommended one:
// durable, tuned for small records, quiet, unencrypted.
type Options struct {
	// EncryptionKey encrypts everything on disk with AES: 16, 24 or 32 bytes. Nil
	// means no encryption. A directory stays with the choice it was made with; see
	// RotateEncryptionKey.
	EncryptionKey EncryptionKey
	// MinFreeBytes is the free space on the file system below which new records and
	// ordinary changes are refused. Default 256 MiB: what flushing and compaction may
	// need at once. Less than 96 MiB counts as 96 MiB.
	//
	// What is below it is a reserve: Delete, Purge, and what is written with a context
	// of [backend.Urgent], go on until 80 MiB are free, or more where the next flush
	// leads to a compaction. Open needs 64 MiB free, which the others leave to it, and
	// for a new store MinFreeBytes: on a file system that has less, it fails at once.
	MinFreeBytes uint64
	// InsecureGroupAccess leaves the directory's group the rights that it has. Set it
	// where a volume is given to a container by its group (fsGroup in Kubernetes) and
	// the store is in the volume's root, and where that group is nobody else's. Default
	// false: the directory is made 0700 and its files 0600, whatever the umask, and Open
	// fails where it cannot. The rights of all others are taken away in any case.
	InsecureGroupAccess bool
	// ReadAfterFailure lets Get, List and Usage go on after a commit has failed.
	// They may then show what is not on disk: a revocation, say, that the next
	// start will not know. Default false: they fail with backend.ErrUnavailable, as
	// Watch does in any case.
	ReadAfterFailure bool
	// Logger gets BadgerDB's warnings and errors, and its chatter at debug level.
	// Nil discards it all.
	Logger *slog.Logger
	// IndexCacheBytes bounds the memory for table indexes; zero keeps them all,
	// which is right below about 5 million records. Encryption needs a bound: there
	// zero means 32 MiB.
	IndexCacheBytes int64
}

const (
	memTable  = 16 << 20
	topTables = 5 // in level 0, until it is compacted
)

// resolved fills in defaults and refuses what BadgerDB would panic on.
func (o Options) resolved() (Options, error) {
	switch len(o.EncryptionKey) {
	case 0, 16, 24, 32:
	default:
		return o, fmt.Errorf("badger: encryption key of %d bytes, want 16, 24 or 32", len(o.EncryptionKey))
	}
	o.EncryptionKey = append(EncryptionKey(nil), o.EncryptionKey...)
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFree
	}
	o.MinFreeBytes = max(o.MinFreeBytes, leastMinFree)
	if o.IndexCacheBytes < 0 {
		return o, fmt.Errorf("badger: IndexCacheBytes %d is negative", o.IndexCacheBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// engine is the option set measured to be right for records of a kilobyte or
// less: no compression and no block cache (the page cache does it), memtables
// large enough for a bulk load, no global metrics.
func (o Options) engine(dir string) badgerdb.Options {
	e := badgerdb.DefaultOptions(dir).
		WithSyncWrites(true).
		WithMemTableSize(memTable).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithNumLevelZeroTables(topTables).
		WithValueLogFileSize(16 << 20).
		WithCompression(bopts.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(o.IndexCacheBytes).
		WithNumVersionsToKeep(1).
		WithDetectConflicts(true).
		WithMetricsEnabled(false).
		WithLogger(bridge{o.Logger})
	if len(o.EncryptionKey) > 0 {
		e = e.WithEncryptionKey(o.EncryptionKey).WithBlockCacheSize(16 << 20)
		if o.IndexCacheBytes == 0 {
			e = e.WithIndexCacheSize(32 << 20)
		}
	}
	return e
}

// bridge is BadgerDB's logger on slog.
type bridge struct{ log *slog.Logger }

func (b bridge) Errorf(f string, args ...any) { b.log.Error("badger", "text", fmt.Sprintf(f, args...)) }
func (b bridge) Warningf(f string, args ...any) {
	b.log.Warn("badger", "text", fmt.Sprintf(f, args...))
}
func (b bridge) Infof(f string, args ...any)  { b.log.Debug("badger", "text", fmt.Sprintf(f, args...)) }
func (b bridge) Debugf(f string, args ...any) { b.log.Debug("badger", "text", fmt.Sprintf(f, args...)) }
