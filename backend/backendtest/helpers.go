package backendtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/fobkit/fob/backend"
)

// born is an arbitrary time, in Unix milliseconds, about which records are
// created; not a whole second.
const born = 1_764_000_000_123

// idOf is an ID for each n, neither in the order of n nor random.
func idOf(n int) (id backend.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(n+1)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], uint64(n+1))
	return id
}

// sample is record n.
func sample(n int) backend.Record {
	return backend.Record{
		ID: idOf(n), Kind: 1, Owner: "owner", Created: born + int64(n), Body: fmt.Appendf(nil, "body %d", n),
	}
}

// same compares all but the versions.
func same(a, b backend.Record) bool {
	return a.ID == b.ID && a.Kind == b.Kind && a.Owner == b.Owner && a.Parent == b.Parent && a.Created == b.Created &&
		a.Expires == b.Expires && a.PurgeAt == b.PurgeAt && slices.Equal(a.Labels, b.Labels) && bytes.Equal(a.Body, b.Body)
}

// show prints a record for a failure, long bodies cut.
func show(r backend.Record) string {
	body := r.Body
	if len(body) > 40 {
		body = body[:40]
	}
	return fmt.Sprintf("{ID:%x Kind:%d Owner:%q Parent:%x Created:%d Expires:%d PurgeAt:%d Labels:%s Body:%d bytes %q Version:%d}",
		r.ID, r.Kind, r.Owner, r.Parent, r.Created, r.Expires, r.PurgeAt, showLabels(r.Labels), len(r.Body), body, r.Version)
}

func showLabels(labels []string) string {
	if len(labels) > 5 {
		return fmt.Sprintf("%d beginning with %.40q", len(labels), labels[:5])
	}
	return fmt.Sprintf("%.40q", labels)
}

// create puts a new record, which must succeed, and returns it as it is stored.
func (p *probe) create(rec backend.Record) backend.Record {
	p.Helper()
	return p.put(rec, backend.IfAbsent())
}

// overwrite puts rec over the version that it has.
func (p *probe) overwrite(rec backend.Record) backend.Record {
	p.Helper()
	return p.put(rec, backend.IfVersion(rec.Version))
}

func (p *probe) put(rec backend.Record, cond backend.Cond) backend.Record {
	p.Helper()
	v, err := p.store.Put(p.ctx, rec, cond)
	if err != nil {
		p.broken("a Put whose condition holds failed: %v (record %s)", err, show(rec))
	}
	rec.Version = v
	return rec
}

// holds fails unless the store has exactly this record.
func (p *probe) holds(want backend.Record) {
	p.Helper()
	got, err := p.store.Get(p.ctx, want.ID)
	if err != nil {
		p.broken("Get of a record that is there failed: %v (want %s)", err, show(want))
	}
	if !same(got, want) || got.Version != want.Version {
		p.broken("Get returned %s, want %s", show(got), show(want))
	}
}

// lacks fails unless the store has no such record.
func (p *probe) lacks(id backend.ID) {
	p.Helper()
	got, err := p.store.Get(p.ctx, id)
	if !is(err, backend.ErrNotFound) {
		p.broken("Get of a record that is not there answered (%s, %v), want (%v)", show(got), err, backend.ErrNotFound)
	}
}

// remove deletes the record, which must succeed.
func (p *probe) remove(rec backend.Record) {
	p.Helper()
	if err := p.store.Delete(p.ctx, rec.ID, rec.Version); err != nil {
		p.broken("Delete with the current version failed: %v", err)
	}
}

// fill creates the records, many at a time: durable stores group their commits.
func (p *probe) fill(recs []backend.Record) {
	p.Helper()
	p.each(len(recs), 64, func(i int) error {
		v, err := p.store.Put(p.ctx, recs[i], backend.IfAbsent())
		recs[i].Version = v
		return err
	})
}

// each runs do for 0 to n-1 with some workers and fails with the first error.
func (p *probe) each(n, workers int, do func(i int) error) {
	p.Helper()
	if err := parallel(n, workers, do); err != nil {
		p.broken("one of %d concurrent calls that must succeed failed: %v", n, err)
	}
}

func parallel(n, workers int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		work  = make(chan int)
	)
	for range min(n, workers) {
		wg.Go(func() {
			for i := range work {
				if err := do(i); err != nil {
					once.Do(func() { first = err })
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	return first
}

// walk reads a whole list in pages of q.Limit.
func (p *probe) walk(q backend.Query) []backend.Record {
	p.Helper()
	recs, err := walk(p.ctx, capability[backend.Lister](p), q, nil)
	if err != nil {
		p.broken("%v", err)
	}
	return recs
}

// walk reads a whole list; between, if set, runs after each page.
func walk(ctx context.Context, l backend.Lister, q backend.Query, between func()) ([]backend.Record, error) {
	limit := q.Limit
	if limit == 0 {
		limit = backend.DefaultLimit
	}
	var recs []backend.Record
	for {
		page, err := l.List(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("List failed: %w (query %+v)", err, q)
		}
		if len(page.Records) > limit {
			return nil, fmt.Errorf("a Page has %d records where the limit is %d", len(page.Records), limit)
		}
		recs = append(recs, page.Records...)
		if page.Next == "" {
			return recs, nil
		}
		if page.Next == q.After || len(page.Records) == 0 {
			return nil, fmt.Errorf("a list does not come to its end: an empty Page, or a Next that repeats (query %+v)", q)
		}
		q.After = page.Next
		if between != nil {
			between()
		}
	}
}

// ids are the IDs of the records, in their order.
func ids(recs []backend.Record) []backend.ID {
	out := make([]backend.ID, len(recs))
	for i, r := range recs {
		out[i] = r.ID
	}
	return out
}
