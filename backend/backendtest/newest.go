package backendtest

import (
	"math"
	"slices"

	"github.com/fobkit/fob/backend"
)

// checkNewestEdges is about where a walk backwards begins and ends.
func checkNewestEdges(p *probe) {
	last := backend.ID(slices.Repeat([]byte{0xff}, len(backend.ID{})))
	hard := []backend.ID{{15: 1}, {0: 0x80}, {0: 0xff}, last}
	var recs []backend.Record
	for _, at := range []int64{0, 1, born, math.MaxInt64 - 1, math.MaxInt64} {
		for _, id := range hard {
			rec := labelled(0, "labe", "label", "label2")
			rec.ID, rec.Created, rec.Parent = id, at, idOf(1000)
			if at != math.MaxInt64 { // each ID is one record; the last instant has them as they are
				rec.ID = idOf(len(recs))
			}
			recs = append(recs, p.create(rec))
		}
	}
	for _, limit := range []int{1, 3, backend.MaxLimit} {
		for _, newest := range []bool{true, false} {
			for _, q := range []backend.Query{{}, {Owner: "owner"}, {Parent: idOf(1000)}, {Label: "label"}, {Label: "label2"}, {Label: "labe"}} {
				q.Kind, q.Newest, q.Limit = 1, newest, limit
				p.lists(q, expect(recs, q)...)
			}
		}
	}
	for _, q := range []backend.Query{{Kind: 2}, {Kind: 1, Owner: "owne"}, {Kind: 1, Label: "labe2"}, {Kind: 1, Label: "lab"}, {Kind: 1, Parent: idOf(1001)}} {
		q.Newest = true
		p.lists(q)
	}
}

// appearsOnce fails unless each of those that stayed is in the list once, and none of the
// others more often.
func (p *probe) appearsOnce(q backend.Query, got, stay []backend.Record) {
	p.Helper()
	times := make(map[backend.ID]int)
	for _, rec := range got {
		if times[rec.ID]++; times[rec.ID] > 1 {
			p.broken("the list %s showed record %x %d times", showQuery(q), rec.ID, times[rec.ID])
		}
	}
	for _, rec := range stay {
		if times[rec.ID] == 0 {
			p.broken("the list %s skipped record %x, which was there all along", showQuery(q), rec.ID)
		}
	}
	order := byCreated
	if q.Newest {
		order = func(a, b backend.Record) int { return byCreated(b, a) }
	}
	if !slices.IsSortedFunc(got, order) {
		p.broken("the list %s is out of order", showQuery(q))
	}
}

// checkWalkUnderLabels walks while records before, at and behind the place lose the label and
// get it back.
func checkWalkUnderLabels(p *probe) {
	const n = 120
	for round, newest := range []bool{false, true} {
		label := [...]string{"walked", "walked back"}[round]
		var recs, stay []backend.Record
		for i := range n {
			rec := labelled(round*n+i, label)
			if i%4 == 0 {
				rec.Labels = []string{"before", label, "z"}
			}
			recs = append(recs, rec)
		}
		p.fill(recs)
		for i, rec := range recs {
			if i%3 != 1 {
				stay = append(stay, rec)
			}
		}
		q := backend.Query{Kind: 1, Label: label, Newest: newest, Limit: 5}
		step := 0
		got, err := walk(p.ctx, capability[backend.Lister](p), q, func() {
			for i := step % 3; i < n; i += 7 {
				rec := &recs[i]
				switch {
				case i%3 != 1: // what is beside the label changes, and the label does not
					rec.Labels = [][]string{{label}, {"another", label}, {label, "z"}}[step%3]
				case len(rec.Labels) == 0:
					rec.Labels = []string{label}
				default:
					rec.Labels = nil
				}
				*rec = p.overwrite(*rec)
			}
			step++
		})
		if err != nil {
			p.broken("%v", err)
		}
		p.appearsOnce(q, got, stay)
	}
}

// checkWalkUnderNewer walks backwards while newer records come at the head of the list, as
// they do in every program that issues something.
func checkWalkUnderNewer(p *probe) {
	const n = 60
	var recs []backend.Record
	for i := range n {
		recs = append(recs, labelled(i, "label"))
	}
	p.fill(recs)
	next := n
	for _, q := range []backend.Query{{}, {Owner: "owner"}, {Label: "label"}} {
		q.Kind, q.Newest, q.Limit = 1, true, 7
		want := expect(recs, q)
		got, err := walk(p.ctx, capability[backend.Lister](p), q, func() {
			for range 3 {
				recs = append(recs, p.create(labelled(next, "label")))
				next++
			}
		})
		if err != nil {
			p.broken("%v", err)
		}
		if !slices.Equal(ids(got), want) {
			p.broken("the list %s, while newer records came, has %s, want %s", showQuery(q), showIDs(ids(got)), showIDs(want))
		}
		p.lists(q, expect(recs, q)...)
	}
}
