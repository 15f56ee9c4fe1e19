package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

// walk lists to the end and returns what it saw.
func (s *suite) walk(l backend.Lister, q backend.Query, between func()) []backend.Record {
	s.Helper()
	var all []backend.Record
	for range 100_000 {
		page, err := l.List(s.Context(), q)
		s.must(err, "list")
		limit := q.Limit
		if limit == 0 {
			limit = backend.DefaultLimit
		}
		if len(page.Records) > limit {
			s.breaks("R15", "a page holds at most Limit records", "%d of %d", len(page.Records), limit)
		}
		all = append(all, page.Records...)
		if page.Next == "" {
			return all
		}
		if url.QueryEscape(string(page.Next)) != string(page.Next) {
			s.breaks("R15", "a cursor is safe in a URL", "%q", page.Next)
		}
		q.After = page.Next
		if between != nil {
			between()
		}
	}
	s.breaks("R15", "a list ends")
	return nil
}

func ids(records []backend.Record) []backend.ID {
	out := make([]backend.ID, len(records))
	for i := range records {
		out[i] = records[i].ID
	}
	return out
}

func byCreated(a, b backend.Record) int {
	if a.Created != b.Created {
		return int(a.Created - b.Created)
	}
	return strings.Compare(string(a.ID[:]), string(b.ID[:]))
}

func (s *suite) listing() {
	st := s.open()
	l, ok := capability[backend.Lister](s, st, "Lister")
	if !ok {
		return
	}
	// Ties in Created, insertion out of order, two kinds.
	var all []backend.Record
	for i := range 300 {
		rec := sample(i)
		rec.Created = year2026 + int64(i/4)
		rec.Kind = backend.Kind(1 + i%2)
		rec.Expires = 0
		if i%3 == 0 {
			rec.Expires = year2026 + int64(1000-i)
		}
		all = append(all, rec)
	}
	shuffled := slices.Clone(all)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, rec := range shuffled {
		s.put(st, rec, backend.IfAbsent())
	}
	slices.SortFunc(all, byCreated)
	pick := func(keep func(backend.Record) bool) (want []backend.Record) {
		for _, rec := range all {
			if keep(rec) {
				want = append(want, rec)
			}
		}
		return want
	}
	check := func(what string, q backend.Query, want []backend.Record) {
		s.Helper()
		for _, limit := range []int{0, 1, 7, backend.MaxLimit} {
			q.Limit = limit
			if got := s.walk(l, q, nil); !slices.Equal(ids(got), ids(want)) {
				s.breaks("R15", "a list by "+what+" holds each matching record once, in order", "limit %d: %d records, want %d", limit, len(got), len(want))
			}
		}
	}
	check("kind", backend.Query{Kind: 1}, pick(func(r backend.Record) bool { return r.Kind == 1 }))
	check("kind", backend.Query{Kind: 3}, nil)
	check("owner", backend.Query{Kind: 2, Owner: "owner-1"}, pick(func(r backend.Record) bool { return r.Kind == 2 && r.Owner == "owner-1" }))
	check("parent", backend.Query{Kind: 1, Parent: id(1_000_002)}, pick(func(r backend.Record) bool { return r.Kind == 1 && r.Parent == id(1_000_002) }))
	expiring := func(kind backend.Kind, before int64) []backend.Record {
		want := pick(func(r backend.Record) bool { return r.Kind == kind && r.Expires != 0 && r.Expires < before })
		slices.SortFunc(want, func(a, b backend.Record) int { return int(a.Expires - b.Expires) })
		return want
	}
	check("expiry", backend.Query{Kind: 1, ExpiresBefore: year2026 + 900}, expiring(1, year2026+900))
	check("expiry", backend.Query{Kind: 2, ExpiresBefore: math.MaxInt64}, expiring(2, math.MaxInt64))

	s.listRefusals(l)
	s.moves(st, l, all[0])
	s.walkUnderChange()
	s.long()
}

func (s *suite) listRefusals(l backend.Lister) {
	page, err := l.List(s.Context(), backend.Query{Kind: 1, Limit: 1})
	s.must(err, "list")
	for what, q := range map[string]backend.Query{
		"no Kind":                   {},
		"two indexes":               {Kind: 1, Owner: "a", ExpiresBefore: 5},
		"a negative limit":          {Kind: 1, Limit: -1},
		"a limit above MaxLimit":    {Kind: 1, Limit: backend.MaxLimit + 1},
		"text that is no cursor":    {Kind: 1, After: "nonsense"},
		"a cursor of another kind":  {Kind: 2, After: page.Next},
		"a cursor of another index": {Kind: 1, Owner: "owner-1", After: page.Next},
	} {
		_, err := l.List(s.Context(), q)
		s.is(err, backend.ErrInvalid, "R1", "List refuses "+what)
	}
}

// moves changes Expires and sees the record move in the list by expiry.
func (s *suite) moves(st backend.Store, l backend.Lister, rec backend.Record) {
	rec = s.get(st, rec.ID)
	for _, expires := range []int64{5, 0, 6} {
		rec.Expires = expires
		rec.Version = s.put(st, rec, backend.IfVersion(rec.Version))
		got := s.walk(l, backend.Query{Kind: rec.Kind, ExpiresBefore: 10}, nil)
		if (expires != 0) != (len(got) == 1) {
			s.breaks("R15", "a list by expiry follows a changed Expires", "%d records with Expires %d", len(got), expires)
		}
	}
	s.must(st.Delete(s.Context(), rec.ID, rec.Version), "delete")
	if got := s.walk(l, backend.Query{Kind: rec.Kind, ExpiresBefore: 10}, nil); len(got) != 0 {
		s.breaks("R15", "a deleted record is in no list")
	}
}

// walkUnderChange inserts, deletes and overwrites between pages: what was there
// all the time is seen exactly once.
func (s *suite) walkUnderChange() {
	st := s.open()
	l, _ := backend.As[backend.Lister](st)
	versions := map[int]uint64{}
	for i := range 200 {
		rec := sample(i)
		rec.Created = year2026 + int64(10*i)
		versions[i] = s.put(st, rec, backend.IfAbsent())
	}
	rng := rand.New(rand.NewPCG(2, 2))
	fresh, deleted := 1000, map[backend.ID]bool{}
	got := s.walk(l, backend.Query{Kind: 1, Limit: 9}, func() {
		for range 3 {
			rec := sample(fresh)
			rec.Created = year2026 + rng.Int64N(2000)
			s.put(st, rec, backend.IfAbsent())
			fresh++
		}
		i := rng.IntN(200)
		if v, there := versions[i]; there && i%2 == 0 {
			s.must(st.Delete(s.Context(), id(i), v), "delete")
			delete(versions, i)
			deleted[id(i)] = true
		} else if there {
			rec := s.get(st, id(i))
			rec.Body = []byte("overwritten")
			versions[i] = s.put(st, rec, backend.IfVersion(rec.Version))
		}
	})
	seen := map[backend.ID]int{}
	for _, rec := range got {
		seen[rec.ID]++
	}
	for i := range versions {
		if seen[id(i)] != 1 {
			s.breaks("R15", "a record that is there during the whole walk appears exactly once", "record %d appeared %d times", i, seen[id(i)])
		}
	}
	for rid, n := range seen {
		if n > 1 {
			s.breaks("R15", "no record appears twice", "%x appeared %d times", rid, n)
		}
	}
	if !slices.IsSortedFunc(got, byCreated) {
		s.breaks("R15", "the order holds across pages")
	}
}

// long lists 10,000 records.
func (s *suite) long() {
	st := s.open()
	l, _ := backend.As[backend.Lister](st)
	const n = 10_000
	var next atomic.Int64
	s.parallel(64, func() {
		for i := next.Add(1); i <= n; i = next.Add(1) {
			rec := sample(int(i))
			rec.Owner, rec.Parent, rec.Expires, rec.PurgeAt = "one", backend.ID{}, 0, 0
			if _, err := st.Put(background, rec, backend.IfAbsent()); err != nil {
				s.Errorf("put: %v", err)
				return
			}
		}
	})
	got := s.walk(l, backend.Query{Kind: 1, Owner: "one", Limit: 999}, nil)
	if len(got) != n || !slices.IsSortedFunc(got, byCreated) {
		s.breaks("R15", "a long list holds everything in order", "%d of %d records", len(got), n)
	}
}

func (s *suite) sweep() {
	st := s.open()
	p, ok := capability[backend.Purger](s, st, "Purger")
	if !ok {
		return
	}
	r, usage := capability[backend.UsageRecorder](s, st, "UsageRecorder")
	ctx := s.Context()
	const due, later = year2026 + 500, year2026 + 501
	for i := range 60 {
		rec := sample(i)
		rec.Expires = 1 // expired is not purgeable
		rec.PurgeAt = map[int]int64{0: 0, 1: due, 2: later}[i%3]
		s.put(st, rec, backend.IfAbsent())
		if usage {
			s.must(r.AddUsage(ctx, []backend.Usage{{ID: rec.ID, N: 1, Last: 1}}), "add usage")
		}
	}
	for _, limit := range []int{0, -1, backend.MaxLimit + 1} {
		_, err := p.Purge(ctx, time.UnixMilli(due), limit)
		s.is(err, backend.ErrInvalid, "R17", fmt.Sprintf("Purge refuses limit %d", limit))
	}
	total := 0
	for range 100 {
		n, err := p.Purge(ctx, time.UnixMilli(due), 7)
		s.must(err, "purge")
		if n > 7 {
			s.breaks("R17", "Purge removes at most limit records", "%d of 7", n)
		}
		if total += n; n == 0 {
			break
		}
	}
	if total != 20 {
		s.breaks("R17", "Purge removes what is due, and reports how many", "%d of 20", total)
	}
	for i := range 60 {
		_, err := st.Get(ctx, id(i))
		if i%3 == 1 {
			s.is(err, backend.ErrNotFound, "R17", "what is due is removed")
		} else if err != nil {
			s.breaks("R17", "what is not due stays, expired or not", "record %d: %v", i, err)
		}
		if usage {
			u, err := r.Usage(ctx, []backend.ID{id(i)})
			s.must(err, "usage")
			if (u[0].N == 0) != (i%3 == 1) {
				s.breaks("R17", "usage goes with its record, and only then", "record %d: %d", i, u[0].N)
			}
		}
	}
	// A PurgeAt that moved away is not due, one that came is.
	moved := s.get(st, id(2))
	moved.PurgeAt = 0
	s.put(st, moved, backend.IfVersion(moved.Version))
	came := s.get(st, id(0))
	came.PurgeAt = later
	s.put(st, came, backend.IfVersion(came.Version))
	n, err := p.Purge(ctx, time.UnixMilli(later), backend.MaxLimit)
	s.must(err, "purge")
	if n != 20 {
		s.breaks("R17", "Purge goes by the PurgeAt that is current", "%d of 20", n)
	}
	s.get(st, moved.ID)
	s.purgeRaces()
}

// purgeRaces moves PurgeAt away while Purge runs: whoever's Put won must find
// its record.
func (s *suite) purgeRaces() {
	st := s.open()
	p, _ := backend.As[backend.Purger](st)
	const n = 100
	for i := range n {
		rec := sample(i)
		rec.PurgeAt = 5
		s.put(st, rec, backend.IfAbsent())
	}
	kept := make([]bool, n)
	var next atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 * n {
			if _, err := p.Purge(background, time.UnixMilli(10), 1); err != nil {
				s.Errorf("purge: %v", err)
				return
			}
		}
	}()
	s.parallel(4, func() {
		for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
			rec, err := st.Get(background, id(int(i)))
			if err != nil {
				continue
			}
			rec.PurgeAt = 0
			_, err = st.Put(background, rec, backend.IfVersion(rec.Version))
			kept[i] = err == nil
		}
	})
	<-done
	for i, k := range kept {
		if _, err := st.Get(s.Context(), id(i)); k && err != nil {
			s.breaks("R17", "a record whose PurgeAt moved while Purge ran stays", "record %d: %v", i, err)
		}
	}
}

func (s *suite) usage() {
	st := s.open()
	r, ok := capability[backend.UsageRecorder](s, st, "UsageRecorder")
	if !ok {
		return
	}
	ctx := s.Context()
	read := func(ids ...backend.ID) []backend.Usage {
		s.Helper()
		u, err := r.Usage(ctx, ids)
		s.must(err, "usage")
		if len(u) != len(ids) {
			s.breaks("R16", "Usage answers for each ID asked", "%d for %d", len(u), len(ids))
		}
		for i := range u {
			if u[i].ID != ids[i] {
				s.breaks("R16", "Usage answers in the order asked")
			}
		}
		return u
	}
	if u := read(id(1)); u[0].N != 0 || u[0].Last != 0 {
		s.breaks("R16", "an unknown ID has zero usage")
	}
	s.must(r.AddUsage(ctx, nil), "add no usage")
	s.must(r.AddUsage(ctx, []backend.Usage{{ID: id(1), N: 2, Last: 50}, {ID: id(2), N: 1, Last: 10}, {ID: id(1), N: 3, Last: 40}}), "add usage")
	s.must(r.AddUsage(ctx, []backend.Usage{{ID: id(1), N: 1, Last: 30}, {ID: id(2), N: 0, Last: 60}}), "add usage")
	u := read(id(2), id(3), id(1), id(2))
	if u[2].N != 6 || u[0].N != 1 || u[3].N != 1 || u[1].N != 0 {
		s.breaks("R16", "AddUsage adds, also what repeats in a batch", "%+v", u)
	}
	if u[2].Last != 50 || u[0].Last != 60 {
		s.breaks("R16", "Last moves forward only", "%+v", u)
	}
	rec := sample(1)
	v := s.put(st, rec, backend.IfAbsent())
	before := s.get(st, rec.ID)
	var n atomic.Int64
	s.parallel(8, func() {
		for n.Add(1) <= 200 {
			if err := r.AddUsage(background, []backend.Usage{{ID: rec.ID, N: 1, Last: 100}}); err != nil {
				s.Errorf("add usage: %v", err)
			}
		}
	})
	if u := read(rec.ID); u[0].N != 206 {
		s.breaks("R16", "concurrent AddUsage loses nothing", "%d of 206", u[0].N)
	}
	s.same(s.get(st, rec.ID), before, "R16", "usage never touches the record")
	s.must(st.Delete(ctx, rec.ID, v), "delete")
	if u := read(rec.ID); u[0].N != 0 {
		s.breaks("R16", "usage goes with its record")
	}
}
