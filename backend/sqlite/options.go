package sqlite

import (
	"errors"
	"log/slog"
	"runtime"
	"time"
)

// Options is the settings of a Store. The zero Options is the recommended one.
type Options struct {
	// BusyTimeout is how long a call waits for another process's transaction before
	// it fails with backend.ErrUnavailable. Default 5 seconds.
	BusyTimeout time.Duration
	// PollEvery is how often a Watch looks at the file for what other processes have
	// committed, at least, while the file is written to: about how late their changes are
	// at most. Where the system does not tell of writes (it does on Linux), a Watch looks so
	// often all the time, which with the default costs about a hundredth of a core.
	// Default 20 ms, at most 50 ms.
	PollEvery time.Duration
	// Readers is how many connections read at the same time. Default is the number of
	// processors that Go uses, at least 4. A Store takes more: one to write, one for
	// Maintain, and one for each Watch.
	Readers int
	// MinFreeBytes is the free space on the file system below which new records and
	// ordinary changes are refused. Default 16 MiB: four times what the write-ahead log
	// usually takes. What is below it is a reserve for Delete, Purge, and what is written
	// with a context of [backend.Urgent]; those go on until SQLite finds the disk full.
	// Every process that writes to the file must have it, and nothing else fill the disk.
	MinFreeBytes uint64
	// InsecureGroupAccess leaves the file's group the rights that it has, for processes
	// that run as different users of one group. Default false: Open makes the file, its
	// log and its index 0600, whatever the umask, and fails where it cannot. The rights of
	// all others are taken away in any case. New leaves the files as they are.
	InsecureGroupAccess bool
	// Logger gets warnings. Nil discards them.
	Logger *slog.Logger
}

const (
	defaultBusyTimeout = 5 * time.Second
	defaultPollEvery   = 20 * time.Millisecond
	maxPollEvery       = 50 * time.Millisecond
	defaultMinFree     = 16 << 20
	minReaders         = 4
	ownConns           = 3 // beside the readers: writer, upkeep, one Watch
)

// resolved fills in defaults and reports all problems together.
func (o Options) resolved() (Options, error) {
	var errs []error
	if o.BusyTimeout < 0 {
		errs = append(errs, errors.New("sqlite: Options.BusyTimeout is negative"))
	}
	if o.PollEvery < 0 || o.PollEvery > maxPollEvery {
		errs = append(errs, errors.New("sqlite: Options.PollEvery is not between 0 and 50 ms"))
	}
	if o.Readers < 0 {
		errs = append(errs, errors.New("sqlite: Options.Readers is negative"))
	}
	if o.BusyTimeout == 0 {
		o.BusyTimeout = defaultBusyTimeout
	}
	if o.PollEvery == 0 {
		o.PollEvery = defaultPollEvery
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFree
	}
	if o.Readers == 0 {
		o.Readers = max(minReaders, runtime.GOMAXPROCS(0))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, errors.Join(errs...)
}
