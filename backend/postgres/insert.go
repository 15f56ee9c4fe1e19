package postgres

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// New records that come while others are on their way to the server wait for the
// next statement, and it takes them all: one commit, one connection of the pool.
// While there is a lane free, nothing waits.
const (
	// maxLanes is how many statements with new records are under way at once, and no
	// more than half of the caller's pool. More are better where a commit takes long
	// and few wait for it, fewer where the processors are the limit.
	maxLanes = 4
	// longFlight is when a lane is given to others although its statement is still
	// under way: something is wrong with the connection, or waits for somebody else.
	longFlight = time.Second
	// What one takes at most. Each record is a lock, and the server's table of locks
	// has room for some thousand of all its clients.
	maxInsert      = 64
	maxInsertBytes = 1 << 20
)

// inserts is how much is on its way, and what waits.
type inserts struct {
	lanes int
	long  time.Duration // longFlight, but for tests

	mu      sync.Mutex // guards what is below
	busy    int        // lanes in use
	waiting list.List  // of *insertion
}

// insertion is one new record.
type insertion struct {
	ctx context.Context // its caller's
	rec backend.Record

	// Under inserts.mu: where it waits, or for which statement it left the queue, and
	// whether that has a connection for it or its caller has given up.
	place      *list.Element
	with       *batch
	sent, gone bool

	done chan struct{} // closed when what is below is set
	fate
}

type fate struct {
	version uint64
	err     error
	alone   bool // somebody else writes this ID just now: wait for that, but without the others
}

// batch is what goes together, in one statement. It has no time limit of its own: it
// ends when nobody waits for it any more.
type batch struct {
	ops    []*insertion
	ctx    context.Context // with the values of the first caller's
	cancel context.CancelFunc
	left   int // callers, under inserts.mu
}

func newBatch(ops []*insertion) *batch {
	b := &batch{ops: ops, left: len(ops)}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ops[0].ctx))
	for _, o := range ops {
		o.with = b
	}
	return b
}

// insert puts a record that must not be there yet.
func (s *Store) insert(caller context.Context, rec *backend.Record) (uint64, error) {
	if err := s.enter(caller); err != nil {
		return 0, err
	}
	defer s.calls.Leave()
	ctx, cancel := s.bounded(caller, 0)
	defer cancel()
	o := &insertion{ctx: ctx, rec: *rec}
	if s.inserts.enter(o) {
		defer s.flight()()
	} else if got := s.await(caller, o); got.err != nil || !got.alone {
		return got.version, got.err
	}
	return s.insertOne(caller, ctx, &o.rec)
}

// insertOne inserts one record by itself, and waits for its turn.
func (s *Store) insertOne(caller, ctx context.Context, rec *backend.Record) (uint64, error) {
	var version int64
	err := s.call(caller, ctx, "put", stageWriting, func(ctx context.Context, conn *pgx.Conn) error {
		return ifNoRows(conn.QueryRow(ctx, s.sql.insert, rowOf(rec)...).Scan(&version), backend.ErrConflict)
	})
	if err != nil {
		return 0, err
	}
	s.announce(row{rec.ID, version})
	return uint64(version), nil
}

// await waits for what becomes of o.
func (s *Store) await(caller context.Context, o *insertion) fate {
	select {
	case <-o.done:
		return o.fate
	case <-o.ctx.Done():
	}
	at := stageAcquiring
	if !s.inserts.giveUp(o) {
		at = stageWriting
		select {
		case <-o.done:
			if !errors.Is(o.err, backend.ErrIndeterminate) {
				return o.fate // just now
			}
		default:
		}
	}
	err, _ := verdict(caller, "put", at, o.ctx.Err())
	return fate{err: err}
}

// enter reports whether o can be sent at once. If not, it puts o into the queue.
func (i *inserts) enter(o *insertion) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy < i.lanes {
		i.busy++
		return true
	}
	// Its statement may outlast the caller.
	o.rec.Body, o.rec.Labels = bytes.Clone(o.rec.Body), slices.Clone(o.rec.Labels)
	o.done = make(chan struct{})
	o.place = i.waiting.PushBack(o)
	return false
}

// giveUp takes note that the caller of o waits no longer, and reports whether o was surely
// not sent.
func (i *inserts) giveUp(o *insertion) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	o.gone = true
	if o.with == nil {
		i.waiting.Remove(o.place)
	} else if o.with.left--; o.with.left == 0 {
		o.with.cancel()
	}
	return !o.sent
}

// take returns those records of a batch whose callers still wait, and notes that they are
// sent: a caller who gives up from now on does not know whether its record was written.
func (i *inserts) take(b *batch) (ops []*insertion) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range b.ops {
		if !o.gone {
			o.sent = true
			ops = append(ops, o)
		}
	}
	return ops
}

// apart makes a batch of its own for each of ops whose caller still waits. None of them
// was written.
func (i *inserts) apart(ops []*insertion) (all []*batch) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range ops {
		if !o.gone {
			o.sent = false
			all = append(all, newBatch([]*insertion{o}))
		}
	}
	return all
}

// flight begins one use of a lane, by the caller. The function that it returns ends that
// use and gives the lane to those who wait. If the use takes longer than i.long, they get
// the lane before it has ended.
func (s *Store) flight() (end func()) {
	i := &s.inserts
	over := false // under i.mu
	pass := func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if over {
			return
		}
		over = true
		if b := i.next(); b != nil {
			s.done.Go(func() {
				defer s.flight()()
				s.insertTogether(b)
			})
		}
	}
	late := time.AfterFunc(i.long, pass)
	return func() {
		late.Stop()
		pass()
	}
}

// next returns what a lane that has become free sends next. If nothing waits it returns
// nil, and the lane counts as free. The caller holds i.mu.
func (i *inserts) next() *batch {
	var ops []*insertion
	ids, size := make(map[backend.ID]bool), 0
	for e := i.waiting.Front(); e != nil && len(ops) < maxInsert; {
		o := e.Value.(*insertion)
		here := e
		e = e.Next()
		if ids[o.rec.ID] {
			continue // one of the two must find the other
		}
		if size += sizeOf(&o.rec); size > maxInsertBytes && len(ops) > 0 {
			break
		}
		ids[o.rec.ID] = true
		ops = append(ops, o)
		i.waiting.Remove(here)
	}
	if len(ops) == 0 {
		i.busy--
		return nil
	}
	return newBatch(ops)
}

// sizeOf is about how many bytes a record adds to a statement.
func sizeOf(rec *backend.Record) int {
	n := len(rec.Owner) + len(rec.Body)
	for _, label := range rec.Labels {
		n += len(rec.ID) + len(label)
	}
	return n
}

// insertTogether answers all who still wait. When the server refuses what may be the
// fault of one of them, each goes by itself.
func (s *Store) insertTogether(b *batch) {
	defer b.cancel()
	var sent []*insertion
	var got []fate
	// None of the callers' contexts is the statement's, and its error is nobody's.
	err := s.call(context.Background(), b.ctx, "put", stageWriting, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if sent == nil {
			sent = s.inserts.take(b)
		}
		if len(sent) > 0 {
			got, err = s.insertRows(ctx, conn, sent)
		}
		return err
	})
	switch {
	case err == nil:
		for i, o := range sent {
			o.fate = got[i]
			close(o.done)
		}
	case len(sent) > 1 && ofOne(err):
		for _, one := range s.inserts.apart(sent) {
			s.insertTogether(one)
		}
	default:
		if sent == nil { // there was no connection
			sent = b.ops
		}
		for _, o := range sent {
			o.err = err
			close(o.done)
		}
	}
}

// ofOne reports whether the server may have refused a statement for one of its
// records: its data, its size, a constraint or a trigger of the database's owner, a
// damaged page.
func ofOne(err error) bool {
	pg := serverError(err)
	if pg == nil || pg.SeverityUnlocalized != "ERROR" || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "23", "54", "P0", "XX":
		return true
	}
	// A lock that was not to be had in time, and too many of them.
	return pg.Code == "55P03" || pg.Code == "53200"
}

// insertRows inserts what is not there yet, in one statement, and answers each.
func (s *Store) insertRows(ctx context.Context, conn *pgx.Conn, ops []*insertion) ([]fate, error) {
	rows, err := conn.Query(ctx, s.sql.insertAll, columnsOf(ops)...)
	if err != nil {
		return nil, err
	}
	found := make(map[backend.ID]fate, len(ops))
	var id []byte
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		found[backend.ID(id)] = fate{version: uint64(version), alone: version == 0}
		return nil
	})
	if err != nil {
		return nil, err
	}
	got := make([]fate, len(ops))
	var written []row
	for i, o := range ops {
		a, ok := found[o.rec.ID]
		if !ok {
			a.err = fmt.Errorf("postgres: put: %w", backend.ErrConflict)
		}
		got[i] = a
		if a.version != 0 {
			written = append(written, row{o.rec.ID, int64(a.version)})
		}
	}
	if len(written) > 0 {
		s.announce(written...)
	}
	return got, nil
}

// columnsOf is records as the arguments of a statement: an array for each column.
func columnsOf(ops []*insertion) []any {
	n := len(ops)
	ids, owners, parents, bodies := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	kinds, created, expires, purgeAt := make([]int16, n), make([]int64, n), make([]int64, n), make([]int64, n)
	labelled, labels := [][]byte{}, [][]byte{} // an entry for each label of each record
	for i, o := range ops {
		r := &o.rec
		for _, label := range r.Labels {
			labelled, labels = append(labelled, r.ID[:]), append(labels, []byte(label))
		}
		ids[i], kinds[i], owners[i], parents[i], bodies[i] = r.ID[:], int16(r.Kind), []byte(r.Owner), parentOf(r), notNull(r.Body)
		created[i], expires[i], purgeAt[i] = r.Created, r.Expires, r.PurgeAt
	}
	return []any{ids, kinds, owners, parents, created, expires, purgeAt, bodies, labelled, labels}
}

// lanesFor is how many statements with new records a pool lets go at once. Where
// transactions are serializable it is as many as there are: those of many records
// would conflict with each other, though their records do not.
func lanesFor(connections int32, isolation string) int {
	if isolation == "serializable" {
		return math.MaxInt
	}
	return min(maxLanes, max(1, int(connections)/2))
}
