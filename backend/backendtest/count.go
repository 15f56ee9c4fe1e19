package backendtest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

func countChecks() []check {
	needs := []Capability{Counter}
	return []check{
		{22, "counts by each index, up to most", needs, checkCount},
		{22, "counts follow what is written", needs, checkCountFollows},
		{22, "counts past the most that a Page has", needs, checkLongCount},
		{22, "a count while others write", needs, checkCountUnderWrites},
		{22, "counts that mean nothing", needs, checkBadCounts},
	}
}

// counts fails unless q counts n records, with each of some bounds.
func (p *probe) counts(q backend.Query, n int) {
	p.Helper()
	for _, most := range []int{1, 2, n - 1, n, n + 1, backend.MaxLimit + 1, math.MaxInt} {
		if most < 1 {
			continue
		}
		got, err := capability[backend.Counter](p).Count(p.ctx, q, most)
		p.answers(err, nil, "Count of the list %s", showQuery(q))
		if got != min(n, most) {
			p.broken("Count of the list %s up to %d is %d, want %d", showQuery(q), most, got, min(n, most))
		}
	}
}

func checkCount(p *probe) {
	for _, q := range []backend.Query{{Kind: 1}, {Kind: 1, Owner: "one"}, {Kind: 1, Parent: idOf(1)}, {Kind: 1, Label: "blue"}, {Kind: 1, ExpiresBefore: 5}} {
		p.counts(q, 0)
	}
	recs := mixed(120)
	p.fill(recs)
	for _, q := range queries() {
		p.counts(q, len(expect(recs, q)))
	}
}

func checkCountFollows(p *probe) {
	all := []backend.Query{
		{Kind: 1}, {Kind: 1, Owner: "owner"}, {Kind: 1, Parent: idOf(1000)}, {Kind: 1, Label: "a"}, {Kind: 1, Label: "b"}, {Kind: 1, Label: "b", Newest: true},
		{Kind: 1, ExpiresBefore: born + 5},
	}
	var recs []backend.Record
	follow := func() {
		p.Helper()
		for _, q := range all {
			p.counts(q, len(expect(recs, q)))
		}
	}
	for i := range 4 {
		rec := labelled(i, "a")
		rec.Parent, rec.Expires, rec.PurgeAt = idOf(1000), born+int64(2*i), born+int64(i)
		recs = append(recs, p.create(rec))
		follow()
	}
	recs[1].Labels, recs[1].Expires = []string{"a", "b"}, born+4
	recs[1] = p.overwrite(recs[1])
	recs[2].Labels, recs[2].Expires = nil, 0
	recs[2] = p.overwrite(recs[2])
	follow()
	_, err := p.store.Put(p.ctx, recs[3], backend.IfAbsent())
	p.answers(err, backend.ErrConflict, "Put IfAbsent of a record that exists")
	follow()
	p.remove(recs[1])
	recs = slices.Delete(recs, 1, 2)
	follow()
	if _, ok := optional[backend.Purger](p); ok {
		p.purges(time.UnixMilli(born), 10, 1)
		recs = recs[1:]
		follow()
	}
}

func checkLongCount(p *probe) {
	n := max(p.opts.Records/4, backend.MaxLimit+backend.MaxLimit/4)
	recs := make([]backend.Record, n)
	for i := range recs {
		recs[i] = labelled(i, fmt.Sprint("label ", i%2))
		recs[i].Expires = born + int64(i)
	}
	p.fill(recs)
	p.counts(backend.Query{Kind: 1}, n)
	p.counts(backend.Query{Kind: 1, Owner: "owner", Newest: true}, n)
	p.counts(backend.Query{Kind: 1, Label: "label 1"}, n/2)
	p.counts(backend.Query{Kind: 1, ExpiresBefore: born + int64(n) - 7}, n-7)
}

// checkCountUnderWrites counts while those that stay are overwritten, and others come and
// go.
func checkCountUnderWrites(p *probe) {
	const stay, guests = 60, 5
	recs := make([]backend.Record, stay)
	for i := range recs {
		recs[i] = labelled(i, "label")
	}
	p.fill(recs)
	var over atomic.Bool
	var writes atomic.Int64
	written := make(chan error, 1)
	go func() {
		written <- parallel(guests, guests, func(w int) error {
			for i := 0; !over.Load(); i++ {
				mine := &recs[(w+i*guests)%stay]
				mine.Labels = [][]string{{"label"}, {"another", "label"}}[i/stay%2]
				v, err := p.store.Put(p.ctx, *mine, backend.IfVersion(mine.Version))
				if err != nil {
					return err
				}
				mine.Version = v
				writes.Add(1)
				guest := labelled(1000+w, "label")
				if v, err = p.store.Put(p.ctx, guest, backend.IfAbsent()); err == nil {
					err = p.store.Delete(p.ctx, guest.ID, v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}()
	var wrong error
	for i := 0; (i < 60 || writes.Load() < 100) && len(written) == 0 && wrong == nil; i++ { // until much was written
		q := []backend.Query{{Kind: 1}, {Kind: 1, Owner: "owner"}, {Kind: 1, Label: "label"}}[i%3]
		n, err := capability[backend.Counter](p).Count(p.ctx, q, backend.MaxLimit)
		if err == nil && (n < stay || n > stay+guests) {
			err = fmt.Errorf("it is %d where %d records stay and at most %d others are there", n, stay, guests)
		}
		if err != nil {
			wrong = fmt.Errorf("Count of the list %s: %w", showQuery(q), err)
		}
	}
	over.Store(true)
	if err := errors.Join(wrong, <-written); err != nil {
		p.broken("while others write: %v", err)
	}
	p.counts(backend.Query{Kind: 1, Label: "label"}, stay)
}

func checkBadCounts(p *probe) {
	c := capability[backend.Counter](p)
	for i := range 3 {
		p.create(labelled(i, "a"))
	}
	type count struct {
		q    backend.Query
		most int
	}
	bad := []count{
		{backend.Query{Kind: 1}, 0}, {backend.Query{Kind: 1}, -1}, {backend.Query{Kind: 1}, math.MinInt}, {backend.Query{Kind: 1, Limit: 2}, 5},
		{backend.Query{Kind: 1, Label: "a", Limit: 2}, 5}, {backend.Query{}, 5}, {backend.Query{Label: "a"}, 5},
		{backend.Query{Kind: 1, Label: "a", Owner: "owner"}, 5}, {backend.Query{Kind: 1, ExpiresBefore: 5, Newest: true}, 5},
		{backend.Query{Kind: 1, ExpiresBefore: -1}, 5}, {backend.Query{Kind: 1, After: "x"}, 5},
	}
	if l, ok := optional[backend.Lister](p); ok {
		page, err := l.List(p.ctx, backend.Query{Kind: 1, Limit: 1})
		p.answers(err, nil, "List")
		bad = append(bad, count{backend.Query{Kind: 1, After: page.Next}, 5})
	}
	for _, b := range bad {
		n, err := c.Count(p.ctx, b.q, b.most)
		p.answers(err, backend.ErrInvalid, "Count of the list %s up to %d", showQuery(b.q), b.most)
		if n != 0 {
			p.broken("a Count that failed says %d", n)
		}
	}
	p.counts(backend.Query{Kind: 1}, 3)
}
