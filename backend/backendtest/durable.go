package backendtest

import (
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
)

func durabilityChecks() []check {
	return []check{
		{9, "records outlive the store that wrote them", nil, durable(checkReopenRecords)},
		{9, "lists, and a cursor, outlive it", []Capability{Lister}, durable(checkReopenLists)},
		{9, "labels outlive it", []Capability{Lister}, durable(checkReopenLabels)},
		{9, "usage outlives it", []Capability{UsageRecorder}, durable(checkReopenUsage)},
		{9, "what was purged stays away", []Capability{Purger}, durable(checkReopenPurge)},
		{12, "a token outlives it", []Capability{Watcher}, durable(checkReopenFeed)},
		{8, "versions go on rising", nil, durable(checkReopenVersions)},
		{9, "Close keeps what it acknowledged amid writes", nil, durable(checkReopenAmidWrites)},
		{9, "a process that is killed amid writes", nil, checkKill},
	}
}

// durable leaves out what a store that keeps nothing does not promise.
func durable(run func(p *probe)) func(p *probe) {
	return func(p *probe) {
		p.Helper()
		if p.opts.Reopen == nil {
			p.Logf("the store is not durable: Options.Reopen is not set")
			return
		}
		run(p)
	}
}

// reopen goes on with a store that is opened on the same data.
func (p *probe) reopen() { p.store = p.opts.Reopen(p.t, p.store) }

func checkReopenRecords(p *probe) {
	recs := mixed(60)
	for i := range recs {
		recs[i].PurgeAt = born + int64(i)
	}
	p.fill(recs)
	var gone []backend.ID
	for i := range recs {
		switch i % 4 {
		case 0:
			recs[i].Body, recs[i].Expires, recs[i].PurgeAt = []byte("overwritten"), 0, born+int64(i)
			recs[i] = p.overwrite(recs[i])
		case 1:
			p.remove(recs[i])
			gone = append(gone, recs[i].ID)
		}
	}
	for range 2 {
		p.reopen()
		for i, rec := range recs {
			if i%4 != 1 {
				p.holds(rec)
			}
		}
		for _, id := range gone {
			p.lacks(id)
		}
	}
	for i := range recs { // and they can be written
		if i%4 == 2 {
			recs[i].Body = []byte("overwritten after the restart")
			recs[i] = p.overwrite(recs[i])
			p.holds(recs[i])
		}
	}
}

func checkReopenLists(p *probe) {
	l := capability[backend.Lister](p)
	recs := mixed(120)
	p.fill(recs)
	type place struct {
		q    backend.Query
		want []backend.ID
	}
	var places []place
	for _, q := range queries() {
		q.Limit = 4
		want := expect(recs, q)
		page, err := l.List(p.ctx, q)
		p.answers(err, nil, "List")
		if len(want) > 4 {
			q.After, want = page.Next, want[4:]
		}
		places = append(places, place{q, want})
	}
	p.reopen()
	for _, at := range places {
		p.lists(at.q, at.want...)
		at.q.After = ""
		p.lists(at.q, expect(recs, at.q)...)
	}
}

func checkReopenUsage(p *probe) {
	want := []backend.Usage{{ID: idOf(1), N: 3, Last: born}, {ID: idOf(2), N: 1, Last: 1}, {ID: idOf(3)}}
	rec := p.create(sample(3))
	p.addUsage(want[0], want[1], backend.Usage{ID: rec.ID, N: 9, Last: 9})
	p.remove(rec)
	p.reopen()
	p.used(want...)
	p.addUsage(backend.Usage{ID: idOf(1), N: 1, Last: 5})
	want[0].N++
	p.reopen()
	p.used(want...)
}

func checkReopenPurge(p *probe) {
	due, live := sample(1), sample(2)
	due.PurgeAt, live.PurgeAt = born, born+1
	due, live = p.create(due), p.create(live)
	p.purges(time.UnixMilli(born), 10, 1)
	p.reopen()
	p.lacks(due.ID)
	p.holds(live)
	p.purges(time.UnixMilli(born), 10, 0)
	p.purges(time.UnixMilli(born+1), 10, 1)
}

// checkReopenFeed resumes with the tokens of an earlier life: every change since
// then, or a Reset.
func checkReopenFeed(p *probe) {
	p.create(sample(0))
	w := p.watch(nil)
	p.begun(w)
	token := w.token()
	w.stop()
	recs := []backend.Record{p.create(sample(1))}
	p.reopen()
	recs = append(recs, p.create(sample(2)))
	p.reopen()
	resumed := p.watch(token)
	defer resumed.stop()
	for _, rec := range recs {
		p.await(resumed, fmt.Sprintf("a change between a token and now, over two restarts, or a Reset (record %x)", rec.ID), func() bool {
			_, resets := resumed.count()
			return resets > 0 || resumed.has(rec.ID, rec.Version)
		})
	}
	p.begun(resumed)
	rec := p.create(sample(3))
	p.sees(resumed, rec.ID, rec.Version)
}

func checkReopenVersions(p *probe) {
	kept, removed := p.create(sample(1)), p.create(sample(2))
	removed = p.overwrite(removed)
	p.remove(removed) // the highest version there was, and nothing holds it now
	p.reopen()
	again := sample(2)
	again = p.create(again)
	if again.Version <= removed.Version {
		p.broken("a record had version %d, was deleted, and after a restart is created again with version %d", removed.Version, again.Version)
	}
	p.reopen()
	next := p.overwrite(kept)
	if next.Version <= kept.Version {
		p.broken("after a restart, a Put over version %d returned version %d", kept.Version, next.Version)
	}
}

// checkReopenAmidWrites closes the store under its writers: what returned nil is
// there afterwards, and what answered ErrClosed is not.
func checkReopenAmidWrites(p *probe) {
	const writers = 8
	recs, errs := make([][]backend.Record, writers), make([]error, writers)
	started := make(chan struct{}, writers)
	stopped := make(chan struct{})
	store := p.store
	go func() {
		defer close(stopped)
		_ = parallel(writers, writers, func(w int) error {
			for i := 0; ; i++ {
				rec := sample(w*100_000 + i)
				rec.Version, errs[w] = store.Put(p.ctx, rec, backend.IfAbsent())
				recs[w] = append(recs[w], rec)
				if errs[w] != nil {
					return nil
				}
				if i == 5 {
					started <- struct{}{}
				}
			}
		})
	}()
	for range writers {
		select {
		case <-started:
		case <-stopped:
		}
	}
	p.close()
	if !p.waited(stopped) {
		p.broken("writers hang after Close")
	}
	p.reopen()
	for w, list := range recs {
		p.answers(errs[w], backend.ErrClosed, "a Put that met Close")
		for _, rec := range list[:len(list)-1] {
			p.holds(rec)
		}
		p.lacks(list[len(list)-1].ID)
	}
}

func checkKill(p *probe) {
	if p.opts.Kill == nil {
		p.Logf("Options.Kill is not set: nothing to test")
		return
	}
	p.opts.Kill(p.t)
}

// The life of a record under KillWriter: created, overwritten, and one in four
// deleted. What is in it follows from its ID, so that a torn one shows.
const (
	stepCreated = iota + 1
	stepOverwritten
	stepDeleted
)

// killed is record n as it stands after a step.
func killed(n, step int) backend.Record {
	rec := sample(n)
	rec.Owner = fmt.Sprint("owner ", n%7)
	rec.Body = slices.Repeat(fmt.Appendf(nil, "step %d of record %d.", step, n), 1+n%9)
	return rec
}

// lastStep is where the life of record n ends.
func lastStep(n int) int {
	if n%4 == 0 {
		return stepDeleted
	}
	return stepOverwritten
}
