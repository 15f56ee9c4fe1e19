package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/fobkit/fob/backend/internal/site"
	"github.com/fobkit/fob/backend/internal/writequeue"
)

// Errors of Open, Restore and RotateEncryptionKey, beside those of package backend.
// Nothing has been changed in the directory when one of them is returned.
var (
	// ErrNotAStore: the directory holds something else than a store of this package,
	// or, where one must be there, nothing.
	ErrNotAStore = errors.New("badger: not a store")
	// ErrEncryptionKey: the key is not the one that the store is encrypted with, or
	// there is none where one is needed, or one where none is.
	ErrEncryptionKey = errors.New("badger: wrong encryption key, or none where one is needed")
)

// restoreMarker marks a directory that a Restore has not finished.
const restoreMarker = "RESTORE-UNFINISHED"

// Open opens the store in dir, which is made if it is not there. It recovers
// what a crash has left. It fails with backend.ErrUnavailable if another process
// has the directory open, if the disk is nearly full (see Options.MinFreeBytes), if
// this process may not write there, or if a Restore into it did not finish; with
// ErrNotAStore if the directory holds something else; and with ErrEncryptionKey.
//
// What others may do with the directory is taken from them: see
// Options.InsecureGroupAccess.
func Open(dir string, opts Options) (*Store, error) {
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	if err := prepareDirectory(dir, opts); err != nil {
		return nil, fmt.Errorf("badger: open %s: %w", dir, err)
	}
	db, err := openEngine(opts.engine(dir))
	if err != nil {
		return nil, fmt.Errorf("badger: open %s: %w", dir, err)
	}
	if err := tightenFiles(dir, opts); err != nil {
		return nil, fmt.Errorf("badger: open %s: %w", dir, errors.Join(err, db.Close()))
	}
	opts.EncryptionKey = nil // it is not needed any more, and must not be printed with s
	s := &Store{
		opts:    opts,
		dir:     dir,
		db:      db,
		stop:    make(chan struct{}),
		calls:   calls.Gate{Engine: "badger"},
		changed: news.NewBell(),
	}
	s.queue = writequeue.New[*batch](&s.calls, maxBatch)
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("badger: open %s: %w", dir, errors.Join(err, db.Close()))
	}
	s.done.Go(s.write)
	s.done.Go(s.upkeep)
	return s, nil
}

func openEngine(opts badgerdb.Options) (*badgerdb.DB, error) {
	db, err := badgerdb.Open(opts)
	if errors.Is(err, badgerdb.ErrEncryptionKeyMismatch) {
		return nil, fmt.Errorf("%w: %w", ErrEncryptionKey, err)
	}
	return db, err
}

// contents is what a directory holds.
type contents struct {
	names    []string // without what a file system puts into its root by itself
	manifest bool     // BadgerDB's list of tables: a database is there
	registry bool     // its data keys
	data     bool     // its tables or logs
	foreign  string   // a name that is not BadgerDB's, if there is one
}

// ofTheFileSystem are names that the root of a volume may have and nobody put there.
var ofTheFileSystem = []string{"lost+found", ".snapshot", ".snapshots", ".zfs", ".DS_Store", "aquota.user", "aquota.group"}

func readContents(dir string) (c contents, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, site.Explain(dir, err)
	}
	for _, e := range entries {
		name := e.Name()
		if slices.Contains(ofTheFileSystem, name) || strings.HasPrefix(name, ".Trash-") && e.IsDir() {
			continue
		}
		c.names = append(c.names, name)
		switch ext := filepath.Ext(name); {
		case name == badgerdb.ManifestFilename:
			c.manifest = true
		case name == badgerdb.KeyRegistryFileName:
			c.registry = true
		case ext == ".sst", ext == ".mem", ext == ".vlog":
			c.data = true
		case name == "LOCK", name == "DISCARD", name == "MANIFEST-REWRITE", name == badgerdb.KeyRegistryRewriteFileName:
		default:
			c.foreign = name
		}
	}
	return c, nil
}

// check refuses a directory in which no store is, or may be made.
func (c contents) check(dir string) error {
	switch {
	case slices.Contains(c.names, restoreMarker):
		return fmt.Errorf("a restore into it did not finish; remove it and restore again: %w", backend.ErrUnavailable)
	case !c.manifest && c.foreign != "":
		return fmt.Errorf("%w: the directory holds something else, %s for one: give the store a directory of its own", ErrNotAStore, c.foreign)
	case !c.manifest && c.data:
		return fmt.Errorf("%w: BadgerDB's MANIFEST is missing: restore a backup", ErrNotAStore)
	case c.manifest && c.data && !c.registry:
		return fmt.Errorf("%w: BadgerDB's KEYREGISTRY is missing, and with it what encrypted data are read with: restore a backup", ErrNotAStore)
	case !c.manifest:
		return nil
	}
	f, err := os.Open(filepath.Join(dir, badgerdb.ManifestFilename))
	if err != nil {
		return site.Explain(filepath.Join(dir, badgerdb.ManifestFilename), err)
	}
	var magic [4]byte
	n, _ := f.Read(magic[:])
	_ = f.Close()
	if n == len(magic) && string(magic[:]) != "Bdgr" {
		return fmt.Errorf("%w: its MANIFEST is not BadgerDB's", ErrNotAStore)
	}
	return nil
}

// usable checks that this process may use all files there: some may be of another
// user, who ran the program once.
func (c contents) usable(dir string) error {
	for _, name := range c.names {
		if name == c.foreign {
			continue
		}
		if err := site.File(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeDir makes dir if it is not there, and checks that it is what it must be.
func makeDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if _, at := os.Stat(dir); err != nil && errors.Is(at, fs.ErrNotExist) {
		return site.Explain(dir, err)
	}
	return site.Directory(dir)
}

// lockDirectory takes the directory for itself as BadgerDB will, to say clearly when somebody
// else has it.
func lockDirectory(dir string) (unlock func(), err error) {
	unlock, err = lockDir(dir)
	if inUse(err) {
		return nil, fmt.Errorf("the directory is in use by another process; a Badger store belongs to one, use a store that several can share: %w: %w",
			backend.ErrUnavailable, err)
	}
	return unlock, site.Explain(dir, err)
}

// prepareDirectory checks what would make BadgerDB's Open fail obscurely, or kill the
// process, and mends what a kill can leave.
func prepareDirectory(dir string, opts Options) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	c, err := readContents(dir)
	if err == nil {
		err = c.check(dir)
	}
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.usable(dir); err != nil {
		return err
	}
	if err := opts.roomToOpen(dir, !c.manifest); err != nil {
		return err
	}
	if err := makePrivate(dir, opts); err != nil {
		return err
	}
	// A kill between the making of a memtable's file and its first write leaves it
	// empty, and BadgerDB then fails to open. It holds nothing.
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return err
	}
	for _, name := range logs {
		if info, err := os.Stat(name); err == nil && info.Size() == 0 {
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("empty memtable file: %w", err)
			}
			opts.Logger.Warn("badger: removed an empty memtable file left by a crash", "file", filepath.Base(name))
		}
	}
	return nil
}

// makePrivate takes away what others may do with the directory.
func makePrivate(dir string, opts Options) error {
	had, changed, err := site.Private(dir, 0o700, opts.InsecureGroupAccess)
	if err != nil {
		return err
	}
	if changed {
		opts.Logger.Warn("badger: others could get at the directory; that was taken from them", "directory", dir, "mode", had.String())
	}
	if !opts.InsecureGroupAccess {
		site.Inherit(dir)
	}
	return nil
}

// tightenFiles takes BadgerDB's files from others, which have the mode that the umask gave
// them. The directory keeps others out already; this is for files that are moved.
func tightenFiles(dir string, opts Options) error {
	c, err := readContents(dir)
	if err != nil {
		return err
	}
	for _, name := range c.names {
		if name == c.foreign {
			continue
		}
		if _, _, err := site.Private(filepath.Join(dir, name), 0o600, opts.InsecureGroupAccess); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
