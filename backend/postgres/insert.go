package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// New records that come while others are on their way to the server wait for the
// next statement, and it takes them all: one commit, one connection of the pool.
// Where nothing is on its way, nothing waits.
const (
	// maxLanes is how many such statements are under way at once, and never more than
	// half of the caller's pool. More are better where a commit takes long and few
	// wait for it, fewer where the processors are the limit.
	maxLanes = 4
	// What one takes at most. Each record is a lock, and the server's table of locks
	// has room for some thousand of all its clients.
	maxInsert      = 128
	maxInsertBytes = 1 << 20
)

// inserts is what is on its way, and what waits.
type inserts struct {
	lanes int

	mu      sync.Mutex // guards what is below
	busy    int        // lanes in use
	waiting []*insertion
}

// insertion is one new record. Whoever changes its state has it: its caller, who
// gives it up while it waits, or a statement.
type insertion struct {
	rec   backend.Record
	state atomic.Uint32
	done  chan struct{} // closed when what is below is set

	version int64
	err     error
	alone   bool // it was not written, because of it or of another: try without the others
}

const (
	waiting = iota
	taken
	givenUp
)

// insert puts a record that must not be there yet.
func (s *Store) insert(ctx context.Context, rec *backend.Record) (uint64, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	o := &insertion{rec: *rec}
	if s.inserts.enter(o) {
		defer s.insertNext()
	} else if err := s.await(ctx, o); err != nil || !o.alone {
		return uint64(o.version), err
	}
	if err := s.insertAll(ctx, []*insertion{o}); err != nil {
		return 0, err
	}
	return uint64(o.version), o.err
}

// enter reports whether o can go at once; else it waits.
func (i *inserts) enter(o *insertion) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy < i.lanes {
		i.busy++
		return true
	}
	o.rec.Body = bytes.Clone(o.rec.Body) // its statement may outlast the caller
	o.done = make(chan struct{})
	i.waiting = append(i.waiting, o)
	return false
}

// next is what the lane that has become free takes, in the order in which
// statements take their locks, so that they never wait for each other in a circle.
// Nothing: it is free.
func (i *inserts) next() []*insertion {
	i.mu.Lock()
	defer i.mu.Unlock()
	var ops []*insertion
	ids := make(map[backend.ID]bool)
	left, size := i.waiting[:0], 0
	for n, o := range i.waiting {
		size += len(o.rec.Body)
		if len(ops) == maxInsert || len(ops) > 0 && size > maxInsertBytes {
			left = append(left, i.waiting[n:]...)
			break
		}
		switch {
		case ids[o.rec.ID]:
			left = append(left, o) // one of the two must find the other
		case o.state.CompareAndSwap(waiting, taken):
			ids[o.rec.ID] = true
			ops = append(ops, o)
		}
	}
	clear(i.waiting[len(left):])
	i.waiting = left
	if len(ops) == 0 {
		i.busy--
	}
	slices.SortFunc(ops, func(a, b *insertion) int { return bytes.Compare(a.rec.ID[:], b.rec.ID[:]) })
	return ops
}

// insertNext gives the lane of a caller to those who wait, who have contexts of
// their own: none of these is the statement's.
func (s *Store) insertNext() {
	ops := s.inserts.next()
	if len(ops) == 0 {
		return
	}
	s.done.Go(func() {
		for ; len(ops) > 0; ops = s.inserts.next() {
			err := s.insertAll(context.Background(), ops)
			for _, o := range ops {
				switch {
				case err == nil:
				case len(ops) > 1 && serverError(err) != nil && !errors.Is(err, backend.ErrIndeterminate):
					o.alone = true // the server refused them all, which may be the fault of one
				default:
					o.err = err
				}
				close(o.done)
			}
		}
	})
}

// await waits for what becomes of o.
func (s *Store) await(caller context.Context, o *insertion) error {
	ctx, cancel := s.bounded(caller, 0)
	defer cancel()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
	}
	at := writing
	if o.state.CompareAndSwap(waiting, givenUp) {
		at = acquiring
	}
	err, _ := verdict(caller, "put", at, ctx.Err())
	return err
}

// insertArgs is the arguments of the statement: an array for each column.
func insertArgs(ops []*insertion) []any {
	n := len(ops)
	ids, owners, parents, bodies := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	kinds, created, expires, purgeAt := make([]int16, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, o := range ops {
		r := &o.rec
		ids[i], kinds[i], owners[i], parents[i], bodies[i] = r.ID[:], int16(r.Kind), []byte(r.Owner), parentOf(r), present(r.Body)
		created[i], expires[i], purgeAt[i] = r.Created, r.Expires, r.PurgeAt
	}
	return []any{ids, kinds, owners, parents, created, expires, purgeAt, bodies}
}

// insertAll inserts what is not there yet, in one statement.
func (s *Store) insertAll(ctx context.Context, ops []*insertion) error {
	args := insertArgs(ops)
	versions := make(map[backend.ID]int64, len(ops))
	err := s.call(ctx, "put", writing, 0, func(ctx context.Context, conn *pgx.Conn) error {
		clear(versions)
		rows, err := conn.Query(ctx, s.sql.insert, args...)
		if err != nil {
			return err
		}
		var id []byte
		var version int64
		_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			versions[backend.ID(id)] = version
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	for _, o := range ops {
		if o.version = versions[o.rec.ID]; o.version == 0 {
			o.err = fmt.Errorf("postgres: put: %w", backend.ErrConflict)
		}
	}
	if len(versions) > 0 {
		s.announce()
	}
	return nil
}
