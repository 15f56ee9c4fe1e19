package badger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/site"
)

// ErrBackup says that a backup cannot be restored: it was changed, cut, or sealed
// under another key.
var ErrBackup = errors.New("badger: unusable backup")

// Backup writes the whole store to w, sealed under key, as it is at one instant.
// It runs beside reads and writes. BadgerDB's own backups are plain text, also of
// an encrypted store; these are not.
//
// There are no incremental backups: BadgerDB drops the traces of deletions when it
// compacts, and an increment would then bring what was deleted back.
func (s *Store) Backup(ctx context.Context, w io.Writer, key BackupKey) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return err
	}
	out, err := newSealer(w, key)
	if err != nil {
		return err
	}
	stream := s.db.NewStream()
	stream.NumGo = 1 // each goroutine of a Stream has a transaction, and an instant, of its own
	if _, err := stream.Backup(contextWriter{ctx, out}, 0); err != nil {
		return fmt.Errorf("badger: backup: %w", err)
	}
	if err := out.finish(); err != nil {
		return fmt.Errorf("badger: backup: %w", err)
	}
	return nil
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// Restore makes a store in dir, which must be empty or absent, from a backup; what the
// root of a volume has by itself (lost+found) does not count. Where the place or the
// length of the key is wrong, nothing is written. The stream is checked whole: a changed or cut one is ErrBackup. A Restore that
// fails, for want of space say, leaves a directory that Open refuses.
//
// What is restored is the past: credentials revoked since the backup are valid
// in it. Re-apply later revocations before it is used. The restored store is a
// new one to those who follow its feed: they are told to forget what they hold.
func Restore(ctx context.Context, dir string, key BackupKey, opts Options, backup io.Reader) error {
	opts, err := opts.resolved()
	if err != nil {
		return err
	}
	if err := key.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	found, err := readContents(dir)
	if err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if len(found.names) > 0 {
		return fmt.Errorf("badger: restore into %s: %w: the directory is not empty, %s is in it", dir, backend.ErrInvalid, found.names[0])
	}
	if err := prepareDirectory(dir, opts); err != nil {
		return fmt.Errorf("badger: restore into %s: %w", dir, err)
	}
	marker := filepath.Join(dir, restoreMarker)
	if err := writeSynced(marker); err != nil {
		return fmt.Errorf("badger: restore: %w", site.Explain(marker, err))
	}
	if err := restoreStore(ctx, dir, key, opts, backup); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if err := os.Remove(marker); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	return syncDir(dir)
}

func restoreStore(ctx context.Context, dir string, key BackupKey, opts Options, backup io.Reader) (err error) {
	in, err := newOpener(&guardedReader{ctx: ctx, r: backup, dir: dir, least: opts.MinFreeBytes}, key)
	if err != nil {
		return err
	}
	db, err := badgerdb.Open(opts.engine(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), tightenFiles(dir, opts)) }()
	if err := db.Load(in, 256); err != nil {
		return err
	}
	if err := in.end(); err != nil {
		return err
	}
	var epoch [16]byte
	_, _ = rand.Read(epoch[:]) // never returns an error
	return db.Update(func(txn *badgerdb.Txn) error {
		if _, err := txn.Get(keyFormat); err != nil {
			return fmt.Errorf("%w: no store in it", ErrBackup)
		}
		return txn.Set(keyEpoch, epoch[:])
	})
}

// guardedReader stops when ctx ends, and when the disk is nearly full: BadgerDB
// would end the process.
type guardedReader struct {
	ctx   context.Context
	r     io.Reader
	dir   string
	least uint64
	read  uint64 // since the disk was last looked at
}

// lookEvery is how much is read between two looks at the disk, in bytes.
const lookEvery = 1 << 20

func (g *guardedReader) Read(b []byte) (int, error) {
	if err := g.ctx.Err(); err != nil {
		return 0, err
	}
	if g.read >= lookEvery {
		g.read = 0
		if free, err := site.Free(g.dir); err == nil && free < g.least {
			return 0, fmt.Errorf("disk nearly full: %d MiB free, %d MiB are kept: %w", free>>20, g.least>>20, backend.ErrUnavailable)
		}
	}
	n, err := g.r.Read(b)
	g.read += uint64(n)
	return n, err
}

func writeSynced(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RotateEncryptionKey changes the key of a store that no process has open and that was
// closed. old is nil for a store made without one, whose old files stay plain; next is
// never nil, because what is encrypted cannot be made plain: restore a backup for that.
// It takes little longer on a large store: the data keys, which it seals anew, stay.
//
// Nothing is changed where it fails: with ErrEncryptionKey if old is wrong, with
// ErrNotAStore if dir is empty or holds something else, and with backend.ErrUnavailable if
// the directory is in use, may not be written to, or has to be recovered first, by Open.
func RotateEncryptionKey(dir string, old, next EncryptionKey) error {
	if len(next) == 0 {
		return fmt.Errorf("badger: rotate key of %s: %w: no new key", dir, backend.ErrInvalid)
	}
	for _, k := range []EncryptionKey{old, next} {
		if _, err := (Options{EncryptionKey: k}).resolved(); err != nil {
			return err
		}
	}
	if err := site.Directory(dir); err != nil {
		return fmt.Errorf("badger: rotate key of %s: %w", dir, err)
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return fmt.Errorf("badger: rotate key of %s: %w", dir, err)
	}
	defer unlock()
	if err := isStore(dir, old); err != nil {
		return fmt.Errorf("badger: rotate key of %s: %w", dir, err)
	}
	opts := badgerdb.KeyRegistryOptions{Dir: dir, ReadOnly: true, EncryptionKey: old}
	registry, err := badgerdb.OpenKeyRegistry(opts)
	if err != nil {
		return fmt.Errorf("badger: rotate key of %s: %w", dir, err)
	}
	opts.EncryptionKey = next
	if err := errors.Join(badgerdb.WriteKeyRegistry(registry, opts), registry.Close(), syncDir(dir)); err != nil {
		return fmt.Errorf("badger: rotate key of %s: %w", dir, err)
	}
	return nil
}

// isStore looks into a directory that must hold a store, and writes nothing.
func isStore(dir string, key EncryptionKey) (err error) {
	c, err := readContents(dir)
	if err == nil {
		err = c.check(dir)
	}
	switch {
	case err != nil:
		return err
	case !c.manifest || !c.registry:
		return fmt.Errorf("%w: no store is in it: name the directory that Open was given", ErrNotAStore)
	}
	if err := c.usable(dir); err != nil {
		return err
	}
	opts, err := Options{EncryptionKey: key}.resolved()
	if err != nil {
		return err
	}
	// The lock is ours.
	db, err := openEngine(opts.engine(dir).WithReadOnly(true).WithBypassLockGuard(true))
	if err != nil && strings.Contains(err.Error(), badgerdb.ErrTruncateNeeded.Error()) { // it is not wrapped
		return fmt.Errorf("%w: it was not closed: open it and close it first, which recovers it", backend.ErrUnavailable)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(txn *badgerdb.Txn) error {
		if _, err := txn.Get(keyFormat); err != nil {
			return fmt.Errorf("%w: it is the BadgerDB of another application: %w", ErrNotAStore, err)
		}
		return nil
	})
}
