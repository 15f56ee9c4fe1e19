package backendtest

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"github.com/fobkit/fob/backend"
)

func listChecks() []check {
	needs := []Capability{Lister}
	return []check{
		{15, "order and filters", needs, checkOrderAndFilters},
		{15, "pages of every size", needs, checkPages},
		{15, "10,000 records", needs, checkManyRecords},
		{15, "a walk while others write", needs, checkWalkUnderWrites},
		{15, "a record moves when its expiry does", needs, checkExpiryMoves},
		{15, "a cursor outlives its record", needs, checkCursorOutlives},
		{15, "a cursor belongs to its list", needs, checkCursorOfAnotherList},
		{1, "queries that mean nothing", needs, checkBadQueries},
		{2, "lists return whole records", needs, checkListedRecords},
	}
}

// byCreated is the order of lists but that of expiry; Newest is the reverse of it.
func byCreated(a, b backend.Record) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), bytes.Compare(a.ID[:], b.ID[:]))
}

func byExpiry(a, b backend.Record) int {
	return cmp.Or(cmp.Compare(a.Expires, b.Expires), bytes.Compare(a.ID[:], b.ID[:]))
}

// expect is the list that a store with these records must give.
func expect(recs []backend.Record, q backend.Query) []backend.ID {
	order := byCreated
	if q.ExpiresBefore != 0 {
		order = byExpiry
	}
	kept := slices.Clone(recs)
	kept = slices.DeleteFunc(kept, func(r backend.Record) bool {
		return r.Kind != q.Kind || q.Owner != "" && r.Owner != q.Owner || q.Parent != backend.ID{} && r.Parent != q.Parent ||
			q.Label != "" && !slices.Contains(r.Labels, q.Label) ||
			q.ExpiresBefore != 0 && (r.Expires == 0 || r.Expires >= q.ExpiresBefore)
	})
	slices.SortFunc(kept, order)
	if q.Newest {
		slices.Reverse(kept)
	}
	return ids(kept)
}

// mixed is n records that differ in all that is listed by, with many ties.
func mixed(n int) []backend.Record {
	recs := make([]backend.Record, n)
	for i := range recs {
		recs[i] = sample(i)
		recs[i].Kind = backend.Kind(1 + i%2)
		recs[i].Owner = [...]string{"one", "two", "", "three"}[i/2%4]
		recs[i].Created = born + int64(i*7%5)
		recs[i].Labels = [...][]string{nil, {"blue"}, {"blue", "red"}, {"blue", "one", "red"}, {}, {"red"}, {"blu"}}[i%7]
		if i%3 != 0 {
			recs[i].Parent = idOf(100_000 + i%3)
		}
		if i%4 != 0 {
			recs[i].Expires = born + int64(i*11%6)
		}
	}
	return recs
}

// queries is one for each list of mixed.
func queries() []backend.Query {
	var list []backend.Query
	for kind := backend.Kind(1); kind <= 3; kind++ {
		list = append(list, backend.Query{Kind: kind})
		for _, owner := range []string{"one", "two", "three", "four"} {
			list = append(list, backend.Query{Kind: kind, Owner: owner})
		}
		for i := range 3 {
			list = append(list, backend.Query{Kind: kind, Parent: idOf(100_000 + i)})
		}
		for _, label := range []string{"blue", "red", "one", "blu", "b"} {
			list = append(list, backend.Query{Kind: kind, Label: label})
		}
		for _, q := range list {
			if q.Kind == kind {
				q.Newest = true
				list = append(list, q)
			}
		}
		for before := range int64(8) {
			list = append(list, backend.Query{Kind: kind, ExpiresBefore: born + before})
		}
	}
	return list
}

func checkOrderAndFilters(p *probe) {
	recs := mixed(120)
	p.lists(backend.Query{Kind: 1})
	p.fill(recs)
	for _, q := range queries() {
		p.lists(q, expect(recs, q)...)
	}
	for i, rec := range recs {
		if i%3 == 0 {
			p.remove(rec)
		}
	}
	var left []backend.Record
	for i, rec := range recs {
		if i%3 != 0 {
			left = append(left, rec)
		}
	}
	for _, q := range queries() {
		p.lists(q, expect(left, q)...)
	}
}

func checkPages(p *probe) {
	recs := mixed(230) // so that the default limit has more than one page
	p.fill(recs)
	for _, limit := range []int{0, 1, 2, 7, 115, backend.MaxLimit} {
		for _, q := range []backend.Query{
			{Kind: 1}, {Kind: 2, Owner: "one"}, {Kind: 1, Parent: idOf(100_001)}, {Kind: 2, ExpiresBefore: born + 5}, {Kind: 1, Label: "blue"},
			{Kind: 2, Newest: true}, {Kind: 1, Owner: "one", Newest: true}, {Kind: 2, Parent: idOf(100_001), Newest: true}, {Kind: 2, Label: "blue", Newest: true},
		} {
			q.Limit = limit
			p.lists(q, expect(recs, q)...)
		}
	}
	page, err := capability[backend.Lister](p).List(p.ctx, backend.Query{Kind: 1})
	p.answers(err, nil, "List")
	if len(page.Records) != backend.DefaultLimit {
		p.broken("a page of a long list without a Limit has %d records, want %d", len(page.Records), backend.DefaultLimit)
	}
}

func checkManyRecords(p *probe) {
	n := p.opts.Records
	recs := make([]backend.Record, n)
	for i := range recs {
		recs[i] = sample(i)
		recs[i].Owner = fmt.Sprint("owner ", i%3)
		recs[i].Labels = []string{fmt.Sprint("label ", i%5)}
		recs[i].Created = born + int64((i*7919)%n/2) // out of order, each instant twice
		recs[i].Expires = born + int64((i*104_729)%n)
	}
	p.fill(recs)
	for _, q := range []backend.Query{
		{Kind: 1, Limit: backend.MaxLimit}, {Kind: 1, Owner: "owner 1", Limit: 999}, {Kind: 1, ExpiresBefore: born + int64(n/2), Limit: 100},
		{Kind: 1, Label: "label 1", Limit: 998}, {Kind: 1, Label: "label 4", Newest: true, Limit: 101}, {Kind: 1, Newest: true, Limit: backend.MaxLimit},
	} {
		p.lists(q, expect(recs, q)...)
	}
}

func checkWalkUnderWrites(p *probe) {
	const n = 300
	recs := make([]backend.Record, n)
	for i := range recs {
		recs[i] = sample(i)
		recs[i].Created, recs[i].Labels = born+int64(i*10), []string{"walked"}
		recs[i].Expires = born + int64(i*10)
	}
	for _, q := range []backend.Query{
		{Limit: 10}, {Owner: "owner", Limit: 7}, {ExpiresBefore: born + n*10, Limit: 9}, {Label: "walked", Limit: 11}, {Label: "walked", Newest: true, Limit: 8},
	} {
		q.Kind = backend.Kind(len(q.Owner) + q.Limit) // a list of its own
		base := int(q.Kind) * 100_000
		var stay, all []backend.Record
		for i, rec := range recs {
			rec.ID, rec.Kind = idOf(base+i), q.Kind
			rec = p.create(rec)
			all = append(all, rec)
			if i%3 != 1 {
				stay = append(stay, rec)
			}
		}
		// Between the pages, records go and come before, at and behind the place.
		step := 0
		got, err := walk(p.ctx, capability[backend.Lister](p), q, func() {
			for i := step * 3 % n; i < n; i += n / 5 {
				if i%3 == 1 && all[i].Version != 0 {
					p.remove(all[i])
					all[i].Version = 0
				}
				extra := sample(base + 1000 + step*n + i)
				extra.Kind, extra.Created, extra.Expires, extra.Labels = q.Kind, born+int64(i*10+5), born+int64(i*10+5), []string{"walked"}
				p.create(extra)
				if i%3 == 0 { // stays where it is, with a new version and other labels beside
					all[i].Labels = [][]string{{"walked"}, {"another", "walked", "wall"}}[step%2]
					all[i].Body = []byte("overwritten during the walk")
					all[i] = p.overwrite(all[i])
				}
			}
			step++
		})
		if err != nil {
			p.broken("%v", err)
		}
		times := make(map[backend.ID]int)
		for _, rec := range got {
			times[rec.ID]++
			if times[rec.ID] > 1 {
				p.broken("the list %s showed record %x %d times", showQuery(q), rec.ID, times[rec.ID])
			}
		}
		for _, rec := range stay {
			if times[rec.ID] == 0 {
				p.broken("the list %s skipped record %x, which was there all along", showQuery(q), rec.ID)
			}
		}
		if q.Newest {
			slices.Reverse(got)
		}
		if !slices.IsSortedFunc(got, byCreated) {
			p.broken("the list %s is out of order", showQuery(q))
		}
	}
}

func checkExpiryMoves(p *probe) {
	a, b := sample(1), sample(2)
	a.Expires, b.Expires = born+10, born+20
	a, b = p.create(a), p.create(b)
	q := backend.Query{Kind: 1, ExpiresBefore: born + 100}
	p.lists(q, a.ID, b.ID)
	a.Expires = born + 30
	a = p.overwrite(a)
	p.lists(q, b.ID, a.ID)
	b.Expires = born + 100
	b = p.overwrite(b)
	p.lists(q, a.ID)
	a.Expires = 0
	a = p.overwrite(a)
	p.lists(q)
	a.Expires = 1 // long past, and listed: the store decides nothing by it
	a = p.overwrite(a)
	p.lists(q, a.ID)
	p.lists(backend.Query{Kind: 1}, a.ID, b.ID)
	p.remove(a)
	p.lists(q)
}

func checkCursorOutlives(p *probe) {
	l := capability[backend.Lister](p)
	var recs []backend.Record
	for i := range 6 {
		rec := sample(i)
		rec.Expires, rec.Labels = born+int64(i), []string{"label"}
		recs = append(recs, p.create(rec))
	}
	for _, q := range []backend.Query{
		{Kind: 1, Limit: 2}, {Kind: 1, Owner: "owner", Limit: 2}, {Kind: 1, ExpiresBefore: born + 50, Limit: 2}, {Kind: 1, Label: "label", Limit: 2},
		{Kind: 1, Label: "label", Newest: true, Limit: 2},
	} {
		if q.Newest {
			slices.Reverse(recs)
		}
		page, err := l.List(p.ctx, q)
		p.answers(err, nil, "List")
		if len(page.Records) != 2 || page.Next == "" {
			p.broken("the first page of a long list has %d records and the cursor %q", len(page.Records), page.Next)
		}
		if !regexp.MustCompile(`^[A-Za-z0-9._~-]+$`).MatchString(string(page.Next)) {
			p.broken("the cursor %q has characters that a URL must escape", page.Next)
		}
		last := page.Records[1]
		p.remove(last)
		q.After = page.Next
		p.lists(q, recs[2].ID, recs[3].ID, recs[4].ID, recs[5].ID)
		p.lists(q, recs[2].ID, recs[3].ID, recs[4].ID, recs[5].ID) // a cursor is not used up
		p.create(last)
		p.lists(q, recs[2].ID, recs[3].ID, recs[4].ID, recs[5].ID)
	}
}

func checkCursorOfAnotherList(p *probe) {
	l := capability[backend.Lister](p)
	for i := range 8 {
		rec := sample(i)
		rec.Kind, rec.Owner = backend.Kind(1+i%2), [...]string{"a", "b"}[i/2%2]
		rec.Parent, rec.Expires, rec.Labels = idOf(1000+i/2%2), born+int64(i), []string{"a", "ab"}
		p.create(rec)
	}
	lists := []backend.Query{
		{Kind: 1}, {Kind: 2}, {Kind: 1, Owner: "a"}, {Kind: 1, Owner: "b"}, {Kind: 2, Owner: "a"},
		{Kind: 1, Parent: idOf(1000)}, {Kind: 1, Parent: idOf(1001)}, {Kind: 1, ExpiresBefore: born + 100},
		{Kind: 1, Label: "a"}, {Kind: 1, Label: "ab"}, {Kind: 2, Label: "a"},
		{Kind: 1, Newest: true}, {Kind: 1, Owner: "a", Newest: true}, {Kind: 1, Parent: idOf(1000), Newest: true}, {Kind: 1, Label: "a", Newest: true},
	}
	for i := range lists {
		lists[i].Limit = 1
		page, err := l.List(p.ctx, lists[i])
		p.answers(err, nil, "List")
		if page.Next == "" {
			p.broken("a page before the end of the list %s has no Next", showQuery(lists[i]))
		}
		for j, other := range lists {
			other.After = page.Next
			_, err := l.List(p.ctx, other)
			if i == j {
				p.answers(err, nil, "List %s with its own cursor", showQuery(other))
				continue
			}
			p.answers(err, backend.ErrInvalid, "List %s with a cursor of the list %s", showQuery(other), showQuery(lists[i]))
		}
		// An edge that moves with the clock is the same list.
		if lists[i].ExpiresBefore != 0 {
			moved := lists[i]
			moved.ExpiresBefore += 7
			moved.After = page.Next
			_, err := l.List(p.ctx, moved)
			p.answers(err, nil, "List with a later ExpiresBefore and the cursor of an earlier one")
		}
		for _, bad := range []backend.Cursor{"x", "!", backend.Cursor(bytes.Repeat([]byte("A"), 4096)), page.Next[1:], page.Next + "A", page.Next[:len(page.Next)-1]} {
			q := lists[i]
			q.After = bad
			_, err := l.List(p.ctx, q)
			p.answers(err, backend.ErrInvalid, "List with the cursor %.60q, which no List returned", string(bad))
		}
	}
}

func checkBadQueries(p *probe) {
	l := capability[backend.Lister](p)
	p.create(sample(1))
	for _, q := range []backend.Query{
		{}, {Owner: "owner"}, {Kind: 1, Owner: "owner", Parent: idOf(1)}, {Kind: 1, Owner: "owner", ExpiresBefore: 5},
		{Kind: 1, Parent: idOf(1), ExpiresBefore: 5}, {Kind: 1, ExpiresBefore: -1}, {Kind: 1, Limit: -1}, {Kind: 1, Limit: backend.MaxLimit + 1},
		{Label: "a"}, {Newest: true}, {Kind: 1, Label: "a", Owner: "owner"}, {Kind: 1, Label: "a", Parent: idOf(1)}, {Kind: 1, Label: "a", ExpiresBefore: 5},
		{Kind: 1, ExpiresBefore: 5, Newest: true},
	} {
		page, err := l.List(p.ctx, q)
		p.answers(err, backend.ErrInvalid, "List %s", showQuery(q))
		if len(page.Records) > 0 {
			p.broken("a List that failed returned records")
		}
	}
	p.lists(backend.Query{Kind: 1, Limit: backend.MaxLimit}, idOf(1))
}

func checkListedRecords(p *probe) {
	rec := sample(1)
	rec.Labels = []string{"another", "label"}
	rec.Parent, rec.Expires, rec.PurgeAt, rec.Body = idOf(9), born+2, born+3, bytes.Repeat([]byte("x\x00"), backend.MaxBody/2)
	rec = p.create(rec)
	for range 2 {
		for _, q := range []backend.Query{{Kind: 1}, {Kind: 1, Owner: "owner"}, {Kind: 1, Parent: idOf(9)}, {Kind: 1, ExpiresBefore: born + 1000}, {Kind: 1, Label: "label"}} {
			got := p.walk(q)
			if len(got) != 1 || !same(got[0], rec) || got[0].Version != rec.Version {
				p.broken("the list %s has %d records, want exactly %s", showQuery(q), len(got), show(rec))
			}
		}
		rec.Labels = []string{"label"}
		rec.Expires, rec.PurgeAt, rec.Body = born+9, 0, nil
		rec = p.overwrite(rec)
	}
}
