package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// readers are the connections that read. A token is held while one is used; those
// that are not in use lie on a stack, so that few callers keep few of them, whose
// caches are warm.
type readers struct {
	tokens chan struct{}

	mu   sync.Mutex // guards idle
	idle []*conn
}

func (r *readers) pop() *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) == 0 {
		return nil
	}
	c := r.idle[len(r.idle)-1]
	r.idle = r.idle[:len(r.idle)-1]
	return c
}

func (r *readers) push(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, c)
}

// discard closes what is idle: everything, once no call is under way.
func (r *readers) discard() {
	for c := r.pop(); c != nil; c = r.pop() {
		c.discard()
	}
}

// read runs do on a connection that reads, again while another one is in the way.
// do may not keep what it has from the connection.
func (s *Store) read(ctx context.Context, what string, do func(c *conn) error) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	select {
	case s.readers.tokens <- struct{}{}:
	default:
		select {
		case s.readers.tokens <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("sqlite: %s: %w", what, ctx.Err())
		}
	}
	defer func() { <-s.readers.tokens }()
	c := s.readers.pop()
	if c == nil {
		var err error
		if c, err = s.dial(ctx, forReading); err != nil {
			return contractError(what, phaseReading, err)
		}
	}
	err := do(c)
	if isBusy(err) { // somebody recovers, or closes the last connection but ours
		err = waitWhileBusy(ctx, nil, time.Now().Add(s.opts.BusyTimeout), func() error { return do(c) })
	}
	if isBroken(err) {
		c.discard()
	} else {
		s.readers.push(c)
	}
	if err == nil || errors.Is(err, backend.ErrNotFound) {
		return err
	}
	return contractError(what, phaseReading, err)
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, id backend.ID) (rec backend.Record, err error) {
	err = s.read(ctx, "get", func(c *conn) error {
		found := false
		err := c.rows(sqlGet, []any{id[:]}, func(rows *sql.Rows) (err error) {
			found = true
			rec, err = scanRecord(rows)
			return err
		})
		if err == nil && !found {
			return backend.ErrNotFound
		}
		return err
	})
	if err != nil {
		return backend.Record{}, err
	}
	return rec, nil
}

// scanRecord reads one row of columns.
func scanRecord(rows *sql.Rows) (rec backend.Record, err error) {
	var id, owner, parent, body, labels sql.RawBytes // the driver's memory, until the next row
	var kind, version int64
	if err := rows.Scan(&id, &kind, &owner, &parent, &rec.Created, &rec.Expires, &rec.PurgeAt, &version, &body, &labels); err != nil {
		return rec, fmt.Errorf("%w: %w", backend.ErrCorrupt, err)
	}
	rec.Kind, rec.Version = backend.Kind(kind), uint64(version)
	rec.Owner, rec.Body = string(owner), bytes.Clone(body)
	if rec.Labels, err = decodeLabels(labels); err != nil {
		return backend.Record{}, err
	}
	ok := copy(rec.ID[:], id) == len(id) && len(id) == len(rec.ID)
	if parent != nil {
		ok = ok && copy(rec.Parent[:], parent) == len(parent) && len(parent) == len(rec.Parent)
	}
	// The tables forbid most of this; a damaged page does not.
	if !ok || kind < 1 || kind > 255 || version < 1 || rec.Created < 0 || rec.Expires < 0 || rec.PurgeAt < 0 ||
		len(owner) > backend.MaxOwner || len(body) > backend.MaxBody {
		return backend.Record{}, fmt.Errorf("%w: record %x", backend.ErrCorrupt, id)
	}
	return rec, nil
}

// List implements backend.Lister.
func (s *Store) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	limit, err := backend.CheckQuery(q)
	if err != nil {
		return backend.Page{}, err
	}
	at, id, err := q.After.Place(q)
	if err != nil {
		return backend.Page{}, err
	}
	place := id[:]
	if q.Newest && q.After == "" {
		at, place = math.MaxInt64, bytes.Repeat([]byte{0xff}, len(id)+1) // above every ID, that of ones too
	}
	text, by := listOf(&q)
	args := append([]any{int64(q.Kind), at, place, limit + 1}, by...)
	text = `SELECT ` + selected + ` ` + text + orderOf(&q)
	var page backend.Page
	err = s.read(ctx, "list", func(c *conn) error {
		page = backend.Page{}
		return c.rows(text, args, func(rows *sql.Rows) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if len(page.Records) == limit { // there are more
				last := page.Records[limit-1]
				at := last.Created
				if q.ExpiresBefore != 0 {
					at = last.Expires
				}
				page.Next = backend.NewCursor(q, at, last.ID)
				return nil
			}
			rec, err := scanRecord(rows)
			page.Records = append(page.Records, rec)
			return err
		})
	})
	if err != nil {
		return backend.Page{}, err
	}
	return page, nil
}

// listOf is the part of a statement that selects a list, and what it compares.
func listOf(q *backend.Query) (text string, by []any) {
	switch {
	case q.Owner != "":
		return sqlOwner, []any{[]byte(q.Owner)}
	case q.Parent != backend.ID{}:
		return sqlParent, []any{q.Parent[:]}
	case q.Label != "":
		return sqlLabel, []any{[]byte(q.Label)}
	case q.ExpiresBefore != 0:
		return sqlExpires, []any{q.ExpiresBefore}
	}
	return sqlKind, nil
}

// orderOf is the part of a statement that says where a list goes on, and in which order.
func orderOf(q *backend.Query) string {
	switch {
	case q.ExpiresBefore != 0:
		return sqlAfterExpires
	case q.Label != "" && q.Newest:
		return sqlBeforeLabel
	case q.Label != "":
		return sqlAfterLabel
	case q.Newest:
		return sqlBefore
	}
	return sqlAfter
}

// Count implements backend.Counter: it walks the index, and reads no record.
func (s *Store) Count(ctx context.Context, q backend.Query, most int) (n int, err error) {
	if err := backend.CheckCount(q, most); err != nil {
		return 0, err
	}
	text, by := listOf(&q)
	if q.Label != "" {
		text = sqlCountedLabels
	}
	text = `SELECT count(*) FROM (SELECT 1 ` + text + ` LIMIT $4)`
	err = s.read(ctx, "count", func(c *conn) error {
		return c.row(text, append([]any{int64(q.Kind), nil, nil, most}, by...), &n)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Usage implements backend.UsageRecorder. It reads in one transaction: no batch
// of AddUsage is seen in part.
func (s *Store) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	out := make([]backend.Usage, len(ids))
	err := s.read(ctx, "usage", func(c *conn) error {
		if _, err := c.run(sqlBeginRead); err != nil {
			return err
		}
		err := c.usage(ctx, ids, out)
		_, end := c.run(sqlCommit)
		return errors.Join(err, end)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (c *conn) usage(ctx context.Context, ids []backend.ID, out []backend.Usage) error {
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		var n, last int64
		err := c.row(sqlUsage, []any{id[:]}, &n, &last)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		out[i] = backend.Usage{ID: id, N: uint64(n), Last: last}
	}
	return nil
}
