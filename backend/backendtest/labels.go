package backendtest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
)

func labelChecks() []check {
	lister, purger := []Capability{Lister}, []Capability{Lister, Purger}
	return []check{
		{21, "labels come and go with each Put", lister, checkLabels},
		{21, "a Put that failed changes no label", lister, checkLabelsOfFailedPut},
		{21, "labels go with the record", lister, checkLabelsGo},
		{21, "labels go with what is purged", purger, checkLabelsPurged},
		{21, "labels are told apart byte for byte", lister, checkLabelBytes},
		{21, "a label is neither an owner nor of another Kind", lister, checkLabelsApart},
		{21, "as many and as long labels as there may be", lister, checkMostLabels},
		{21, "labels that change under concurrent Puts", lister, checkLabelRace},
		{1, "labels out of range", nil, checkBadLabels},
		{6, "the Labels that were put, and those that were returned", lister, checkLabelSlices},
		{15, "the newest first, to the edges of time and of IDs", lister, checkNewestEdges},
		{15, "a walk by label while labels change", lister, checkWalkUnderLabels},
		{15, "a walk from the newest while newer ones come", lister, checkWalkUnderNewer},
	}
}

// labelled is record n with these labels.
func labelled(n int, labels ...string) backend.Record {
	rec := sample(n)
	rec.Created, rec.Labels = born+int64(n/2), labels
	return rec
}

// listed fails unless each of the labels lists those of the records that have it, in both
// orders.
func (p *probe) listed(recs []backend.Record, labels ...string) {
	p.Helper()
	for _, label := range labels {
		q := backend.Query{Kind: 1, Label: label}
		p.lists(q, expect(recs, q)...)
		q.Newest, q.Limit = true, 2
		p.lists(q, expect(recs, q)...)
	}
}

func checkLabels(p *probe) {
	known := []string{"a", "b", "c", "d"}
	p.listed(nil, known...)
	recs := []backend.Record{p.create(labelled(0)), p.create(labelled(1, "a")), p.create(labelled(2, "a", "b", "c")), p.create(labelled(3, "a", "b", "c"))}
	p.listed(recs, known...)
	for _, step := range []struct {
		n      int
		labels []string
	}{
		{0, []string{"b"}}, {1, nil}, {2, []string{"b", "d"}}, {2, []string{"b", "d"}}, {0, []string{"a", "b", "c", "d"}},
		{0, []string{"c"}}, {1, []string{"a"}}, {2, []string{}}, {1, []string{"b"}}, {3, []string{"c"}}, {3, []string{"a", "b", "c", "d"}},
	} {
		recs[step.n].Labels = step.labels
		recs[step.n] = p.overwrite(recs[step.n])
		p.holds(recs[step.n])
		p.listed(recs, known...)
		recs[step.n].Body = append([]byte("again "), recs[step.n].Body...) // the labels stay
		recs[step.n].Expires++
		recs[step.n] = p.overwrite(recs[step.n])
		p.listed(recs, known...)
	}
	for _, rec := range recs {
		p.holds(rec)
	}
	p.lists(backend.Query{Kind: 1}, expect(recs, backend.Query{Kind: 1})...)
}

func checkLabelsOfFailedPut(p *probe) {
	old := p.create(labelled(0, "a", "b"))
	cur := old
	cur.Labels = []string{"b", "c"}
	cur = p.overwrite(cur)
	known := []string{"a", "b", "c", "d"}
	next := cur
	next.Labels = []string{"d"}
	for _, cond := range []backend.Cond{backend.IfAbsent(), backend.IfVersion(old.Version), backend.IfVersion(math.MaxInt64)} {
		_, err := p.store.Put(p.ctx, next, cond)
		p.answers(err, backend.ErrConflict, "Put with other labels whose condition does not hold")
		p.holds(cur)
		p.listed([]backend.Record{cur}, known...)
	}
	next.Created++
	_, err := p.store.Put(p.ctx, next, backend.IfVersion(cur.Version))
	p.answers(err, backend.ErrInvalid, "Put with other labels that changes Created")
	_, err = p.store.Put(p.ctx, labelled(1, "d"), backend.IfVersion(cur.Version))
	p.answers(err, backend.ErrNotFound, "Put IfVersion with labels, of a record that was never there")
	p.holds(cur)
	p.listed([]backend.Record{cur}, known...)
}

func checkLabelsGo(p *probe) {
	known := []string{"a", "b", "c"}
	gone, stays := p.create(labelled(0, "a", "b")), p.create(labelled(1, "b"))
	gone.Labels = []string{"b", "c"}
	gone = p.overwrite(gone)
	p.remove(gone)
	p.listed([]backend.Record{stays}, known...)
	again := gone
	again.Created, again.Labels = born+9, []string{"a"} // a new record: it may be of another time
	again = p.create(again)
	p.listed([]backend.Record{stays, again}, known...)
	p.remove(again)
	p.remove(stays)
	p.listed(nil, known...)
}

func checkLabelsPurged(p *probe) {
	known := []string{"a", "b", "c"}
	due, stays := labelled(0, "a", "b"), labelled(1, "b")
	due.PurgeAt = born
	due, stays = p.create(due), p.create(stays)
	due.Labels = []string{"b", "c"}
	due = p.overwrite(due)
	p.purges(time.UnixMilli(born), 10, 1)
	p.lacks(due.ID)
	p.listed([]backend.Record{stays}, known...)
	due.PurgeAt, due.Labels = 0, []string{"a"}
	due = p.create(due)
	p.listed([]backend.Record{stays, due}, known...)
}

// hardLabels are in order, pairwise different, and look alike.
func hardLabels() []string {
	long := strings.Repeat("o", backend.MaxLabel-1)
	labels := []string{long, long + "a", long + "b", long[1:] + "a", long[:backend.MaxLabel/2], strings.Repeat("\x00", backend.MaxLabel), strings.Repeat("\xff", backend.MaxLabel)}
	for _, owner := range hardOwners() {
		if len(owner) <= backend.MaxLabel {
			labels = append(labels, owner)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// checkLabelBytes gives each label to a record that has no other, and to one of those that
// have as many of them as there may be.
func checkLabelBytes(p *probe) {
	labels := hardLabels()
	var recs []backend.Record
	for i, label := range labels {
		recs = append(recs, labelled(i, label))
	}
	for some := range slices.Chunk(labels, backend.MaxLabels) {
		recs = append(recs, labelled(len(recs), some...))
	}
	p.fill(recs)
	for _, rec := range recs {
		p.holds(rec)
	}
	for _, label := range labels {
		for _, newest := range []bool{false, true} {
			q := backend.Query{Kind: 1, Label: label, Newest: newest, Limit: 1}
			p.lists(q, expect(recs, q)...)
		}
	}
}

func checkLabelsApart(p *probe) {
	kinds := []backend.Kind{1, 2, 127, 128, 255}
	var recs []backend.Record
	for i, kind := range kinds {
		rec := labelled(i, "label", "shared")
		rec.Kind, rec.Owner = kind, "shared"
		recs = append(recs, p.create(rec))
	}
	other := labelled(len(kinds))
	other.Owner = "label"
	p.create(other)
	for i, kind := range kinds {
		p.lists(backend.Query{Kind: kind, Label: "label"}, recs[i].ID)
		p.lists(backend.Query{Kind: kind, Label: "shared", Newest: true}, recs[i].ID)
		p.lists(backend.Query{Kind: kind, Owner: "shared", Newest: true}, recs[i].ID)
		p.lists(backend.Query{Kind: kind, Label: "owner"})
	}
	p.lists(backend.Query{Kind: 3, Label: "label"})
	p.lists(backend.Query{Kind: 1, Owner: "label"}, other.ID)
	recs[1].Labels = nil
	p.overwrite(recs[1])
	p.lists(backend.Query{Kind: 1, Label: "label"}, recs[0].ID)
	p.lists(backend.Query{Kind: 2, Label: "label"})
}

// mostLabels are all the labels that a record may have, as long as they may be.
func mostLabels(of string) []string {
	labels := make([]string, backend.MaxLabels)
	for i := range labels {
		labels[i] = strings.Repeat(of, backend.MaxLabel-2) + fmt.Sprintf("%02d", i)
	}
	return labels
}

// checkMostLabels changes all of them at once, in a record that is as large as it may be.
func checkMostLabels(p *probe) {
	first, second := mostLabels("x"), mostLabels("y")
	some := []string{first[0], first[1], first[backend.MaxLabels-1], second[0], second[backend.MaxLabels/2], second[backend.MaxLabels-1]}
	rec := labelled(0, first...)
	rec.Owner, rec.Parent, rec.Body = strings.Repeat("o", backend.MaxOwner), idOf(1000), make([]byte, backend.MaxBody)
	rec.Expires, rec.PurgeAt = born, born
	rec = p.create(rec)
	for _, labels := range [][]string{second, slices.Concat(first[:backend.MaxLabels/2], second[:backend.MaxLabels/2]), nil, first, second[1:2], first} {
		p.holds(rec)
		p.listed([]backend.Record{rec}, some...)
		rec.Labels, rec.Expires = labels, rec.Expires+1
		rec = p.overwrite(rec)
	}
	p.listed([]backend.Record{rec}, some...)
	p.remove(rec)
	p.listed(nil, some...)
}

func checkBadLabels(p *probe) {
	bad := map[string][]string{
		"an empty label":         {""},
		"an empty label first":   {"", "a"},
		"labels in no order":     {"b", "a"},
		"a label twice":          {"a", "a"},
		"a label twice, apart":   {"a", "b", "a"},
		"too long a label":       {strings.Repeat("a", backend.MaxLabel+1)},
		"too long a last label":  {"a", strings.Repeat("b", backend.MaxLabel+1)},
		"too many labels":        append(mostLabels("x"), "z"),
		"labels by length first": {"b", "aa"},
	}
	there := p.create(labelled(1, "there"))
	for name, labels := range bad {
		_, err := p.store.Put(p.ctx, labelled(0, labels...), backend.IfAbsent())
		p.answers(err, backend.ErrInvalid, "Put with %s", name)
		p.lacks(idOf(0))
		next := there
		next.Labels = labels
		_, err = p.store.Put(p.ctx, next, backend.IfVersion(there.Version))
		p.answers(err, backend.ErrInvalid, "Put IfVersion with %s", name)
		p.holds(there)
	}
	if _, ok := optional[backend.Lister](p); ok {
		p.listed([]backend.Record{there}, "a", "b", "there")
	}
}

func checkLabelSlices(p *probe) {
	want := labelled(0, "a", "b")
	rec := want
	rec.Labels = append(make([]string, 0, 10), want.Labels...) // room behind it
	want.Version = p.create(rec).Version
	for i := range rec.Labels[:cap(rec.Labels)] {
		rec.Labels[:cap(rec.Labels)][i] = "spoilt"
	}
	for range 3 {
		p.holds(want)
		p.listed([]backend.Record{want}, "a", "b", "spoilt")
		got, err := p.store.Get(p.ctx, want.ID)
		p.answers(err, nil, "Get")
		page := p.walk(backend.Query{Kind: 1, Label: "a"})
		for _, labels := range [][]string{got.Labels, page[0].Labels} {
			for i := range labels {
				labels[i] = "spoilt"
			}
		}
	}
	// A store must know which labels the record had, not which were handed out.
	want.Labels = []string{"c"}
	want = p.overwrite(want)
	p.holds(want)
	p.listed([]backend.Record{want}, "a", "b", "c", "spoilt")
}

// checkLabelRace overwrites few records from many sides, each time with other labels. A
// list shows a record only as it was when it had the label.
func checkLabelRace(p *probe) {
	labels := []string{"a", "b", "c"}
	var recs []backend.Record
	for i := range 4 {
		recs = append(recs, p.create(labelled(i, "a")))
	}
	l := capability[backend.Lister](p)
	err := parallel(240, 8, func(i int) error {
		if i%4 == 0 {
			label := labels[i/4%3]
			found, err := walk(p.ctx, l, backend.Query{Kind: 1, Label: label, Newest: i%8 == 0}, nil)
			for _, rec := range found {
				if err == nil && !slices.Contains(rec.Labels, label) {
					err = fmt.Errorf("a list by the label %q shows %s", label, show(rec))
				}
			}
			return err
		}
		rec, err := p.store.Get(p.ctx, recs[i%len(recs)].ID)
		if err != nil {
			return err
		}
		version := rec.Version
		rec.Labels = [][]string{{"a"}, {"a", "b"}, {"c"}, nil, {"b", "c"}}[i%5]
		if _, err := p.store.Put(p.ctx, rec, backend.IfVersion(version)); !is(err, backend.ErrConflict) {
			return err
		}
		return nil
	})
	if err != nil {
		p.broken("while labels change: %v", err)
	}
	for i := range recs {
		if recs[i], err = p.store.Get(p.ctx, recs[i].ID); err != nil {
			p.broken("Get failed: %v", err)
		}
	}
	p.listed(recs, labels...)
}

func checkReopenLabels(p *probe) {
	known := []string{"a", "b", "c", "d", "d\x00", "\xff"}
	recs := []backend.Record{labelled(0, "a", "b"), labelled(1, "b"), labelled(2), labelled(3, "a", "d\x00", "\xff"), labelled(4, mostLabels("x")...)}
	for i := range recs {
		recs[i] = p.create(recs[i])
	}
	for step := range 3 {
		p.reopen()
		for _, rec := range recs {
			p.holds(rec)
		}
		p.listed(recs, known...)
		p.listed(recs, mostLabels("x")[:3]...)
		recs[0].Labels = [][]string{{"c"}, nil, {"a", "d"}}[step] // of which the store must know what it had
		recs[0] = p.overwrite(recs[0])
		p.listed(recs, known...)
	}
	p.remove(recs[3])
	p.reopen()
	p.listed(slices.Delete(recs, 3, 4), known...)
}
