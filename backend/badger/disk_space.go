package badger

import (
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/site"
)

// How much must be free, in bytes. Each step keeps what the one below it needs.
const (
	defaultMinFree = 256 << 20
	// Open writes out the memtables that it recovers.
	openFree = 4 * memTable
	// Below lastFree nothing is written: a crash may leave a table half written, and
	// Open must have room for all that.
	lastFree = openFree + memTable
	// leastMinFree is the least MinFreeBytes: it leaves a reserve for what ends
	// something, of some ten thousand revocations.
	leastMinFree = lastFree + memTable
)

// roomToOpen refuses an Open that would end the process, and a new store that could
// not be opened a second time, or written to once.
func (o Options) roomToOpen(dir string, fresh bool) error {
	need, why := uint64(openFree), "to recover safely"
	if fresh {
		need, why = o.MinFreeBytes, "for a new store (Options.MinFreeBytes)"
	}
	free, err := site.Free(dir)
	if err != nil || free >= need {
		return nil // where the free space cannot be read, nothing is refused
	}
	return fmt.Errorf("%d MiB free, at least %d needed %s: %w", free>>20, need>>20, why, backend.ErrUnavailable)
}

// room is who may write.
type room int

const (
	roomForNobody room = iota
	roomForUrgent      // what ends something, and what makes room
	roomForAll
)

func (s *Store) free() (uint64, error) {
	if s.hooks.freeBytes != nil {
		return s.hooks.freeBytes(), nil
	}
	free, err := site.Free(s.dir)
	if err != nil {
		return 0, fmt.Errorf("badger: free space: %w: %w", backend.ErrUnavailable, err)
	}
	return free, nil
}

// room says who may write, and what the others are told.
func (s *Store) room() (room, error) {
	free, err := s.free()
	if err != nil {
		return roomForNobody, err
	}
	if free >= s.opts.MinFreeBytes {
		return roomForAll, nil
	}
	if need := lastFree + s.nextCompaction(); free < need {
		return roomForNobody, fmt.Errorf("badger: disk full: %d MiB free, %d MiB are kept for opening the store again and for compaction: %w",
			free>>20, need>>20, backend.ErrUnavailable)
	}
	return roomForUrgent, fmt.Errorf("badger: disk nearly full: %d MiB free, %d MiB are kept: %w",
		free>>20, s.opts.MinFreeBytes>>20, backend.ErrUnavailable)
}

// nextCompaction is what BadgerDB may write at once when the memtable is full: nothing
// more than a table, unless that makes the top level full, which is then merged with
// the level below it before the old tables go.
func (s *Store) nextCompaction() uint64 {
	var top, below int64
	for _, level := range s.db.Levels() {
		switch {
		case level.Level == 0:
			if level.NumTables < topTables-1 {
				return 0
			}
			top = level.Size
		case level.IsBaseLevel:
			below = level.Size
		}
	}
	return uint64(top+below) + memTable
}

// mayCompact refuses a compaction by hand that there may be no room for: at worst
// everything is written anew before the old goes. Where there is room for that, it
// goes on below MinFreeBytes too, for it is what gives space back.
func (s *Store) mayCompact() error {
	free, err := s.free()
	if err != nil || free >= s.opts.MinFreeBytes {
		return err
	}
	need := uint64(lastFree)
	for _, level := range s.db.Levels() {
		need += uint64(level.Size)
	}
	if free < need {
		return fmt.Errorf("badger: disk nearly full: %d MiB free, %d MiB are kept, and a compaction may need %d: %w",
			free>>20, s.opts.MinFreeBytes>>20, need>>20, backend.ErrUnavailable)
	}
	return nil
}
