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
	// committed: about how late their changes are at most.
	// Default 20 ms, at most 50 ms. It costs what waking so often costs: with the
	// default about a hundredth of a core.
	PollEvery time.Duration
	// Readers is how many connections read at the same time. Default is the number of
	// processors that Go uses, at least 4. A Store takes more: one to write, one for
	// Maintain, and one for each Watch.
	Readers int
	// Logger gets warnings. Nil discards them.
	Logger *slog.Logger
}

const (
	defaultBusyTimeout = 5 * time.Second
	defaultPollEvery   = 20 * time.Millisecond
	maxPollEvery       = 50 * time.Millisecond
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
	if o.Readers == 0 {
		o.Readers = max(minReaders, runtime.GOMAXPROCS(0))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, errors.Join(errs...)
}
