package badger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// ErrBackup says that a backup cannot be restored: it was changed, cut, sealed
// under another key, or is not the next of its chain.
var ErrBackup = errors.New("badger: unusable backup")

// Backup writes everything that changed after since to w, sealed under key, and
// returns the since of the next backup: 0 for a full one, what the last one
// returned for an incremental one. It runs beside reads and writes and holds a
// consistent state. BadgerDB's own backups are plain text, also of an encrypted
// store; these are not.
func (s *Store) Backup(ctx context.Context, w io.Writer, key BackupKey, since uint64) (next uint64, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := s.readable(); err != nil {
		return 0, err
	}
	out, err := newSealer(w, key, since)
	if err != nil {
		return 0, err
	}
	next, err = s.db.Backup(contextWriter{ctx, out}, since)
	if err != nil {
		return 0, fmt.Errorf("badger: backup: %w", err)
	}
	next = max(next, since) // nothing changed
	if err := out.finish(next); err != nil {
		return 0, fmt.Errorf("badger: backup: %w", err)
	}
	return next, nil
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

// Restore makes a store in dir, which must be empty or absent, from a full
// backup and the incremental ones that follow it, in order. Every stream is
// checked whole: a changed, cut or misplaced one is ErrBackup. A Restore that
// fails leaves a directory that Open refuses.
//
// What is restored is the past: credentials revoked since the backup are valid
// in it. Re-apply later revocations before it is used. The restored store is a
// new one to those who follow its feed: they are told to forget what they hold.
func Restore(ctx context.Context, dir string, key BackupKey, opts Options, backups ...io.Reader) error {
	opts, err := opts.resolved()
	if err != nil {
		return err
	}
	if len(backups) == 0 {
		return fmt.Errorf("%w: none given", ErrBackup)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if found, err := os.ReadDir(dir); err != nil || len(found) > 0 {
		return errors.Join(fmt.Errorf("badger: restore into %s: %w: the directory is not empty", dir, backend.ErrInvalid), err)
	}
	marker := filepath.Join(dir, restoring)
	if err := writeSynced(marker); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if err := restore(ctx, dir, key, opts, backups); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	if err := os.Remove(marker); err != nil {
		return fmt.Errorf("badger: restore: %w", err)
	}
	return syncDir(dir)
}

func restore(ctx context.Context, dir string, key BackupKey, opts Options, backups []io.Reader) (err error) {
	if err := prepare(dir, opts); err != nil {
		return err
	}
	db, err := badgerdb.Open(opts.engine(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var at uint64
	for i, r := range backups {
		in, err := newOpener(contextReader{ctx, r}, key)
		if err != nil {
			return fmt.Errorf("backup %d: %w", i+1, err)
		}
		if in.since != at {
			return fmt.Errorf("backup %d: %w: it follows another one", i+1, ErrBackup)
		}
		if err := db.Load(in, 256); err != nil {
			return fmt.Errorf("backup %d: %w", i+1, err)
		}
		if at, err = in.end(); err != nil {
			return fmt.Errorf("backup %d: %w", i+1, err)
		}
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

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
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

// RotateEncryptionKey changes the key of a store that no process has open; nil
// stands for none, but a store made without encryption keeps its old files
// plain. It takes no longer on a large store: the data keys, which it seals
// anew, stay. A wrong old key changes nothing.
func RotateEncryptionKey(dir string, old, next EncryptionKey) error {
	for _, k := range []EncryptionKey{old, next} {
		if _, err := (Options{EncryptionKey: k}).resolved(); err != nil {
			return err
		}
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("badger: rotate key of %s: the directory is in use: %w: %w", dir, backend.ErrUnavailable, err)
	}
	defer unlock()
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
