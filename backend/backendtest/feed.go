package backendtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

func feedChecks() []check {
	needs := []Capability{Watcher}
	return []check{
		{12, "the first Batch comes at once", needs, checkFirstBatch},
		{12, "every change, to every watcher", needs, checkEveryChange},
		{12, "the feed tells of what was purged", []Capability{Watcher, Purger}, checkPurgeFeed},
		{12, "many writers", needs, checkManyWriters},
		{12, "resuming by token", needs, checkResume},
		{12, "resuming after every Batch while others write", needs, checkResumeUnderWrites},
		{12, "a token of another feed", needs, checkForeignToken},
		{12, "fn's error ends the Watch", needs, checkWatchError},
		{14, "a slow consumer", needs, checkSlowConsumer},
	}
}

func checkFirstBatch(p *probe) {
	p.create(sample(1))
	w := p.watch(nil)
	defer w.stop()
	p.begun(w)
	if _, resets := w.count(); resets > 0 {
		p.broken("a feed from now on, which can have lost nothing, begins with a Reset")
	}
	if len(w.token()) == 0 {
		p.broken("the first Batch has no Token")
	}
}

func checkEveryChange(p *probe) {
	before := p.create(sample(0)) // changed while they watch, too
	watches := []*watch{p.watch(nil), p.watch(nil), p.watch(nil)}
	for _, w := range watches {
		defer w.stop()
		p.begun(w)
	}
	want := make(map[backend.ID]uint64)
	told := func(rec backend.Record) {
		want[rec.ID] = rec.Version
		for _, w := range watches {
			p.sees(w, rec.ID, rec.Version)
		}
	}
	told(p.overwrite(before))
	for i := range 20 {
		rec := p.create(sample(1 + i))
		told(rec)
		rec = p.overwrite(rec)
		told(rec)
		if i%2 == 0 {
			p.remove(rec)
			rec.Version++ // above the last
			told(rec)
		}
		if i%4 == 0 {
			told(p.create(rec))
		}
	}
	// What failed is no change, and those that keep up lose nothing.
	for _, w := range watches {
		if _, resets := w.count(); resets > 0 {
			p.broken("a consumer that kept up got a Reset")
		}
		for id, version := range want {
			p.sees(w, id, version)
		}
	}
}

func checkPurgeFeed(p *probe) {
	rec := sample(1)
	rec.PurgeAt = 1
	rec = p.create(rec)
	w := p.watch(nil)
	defer w.stop()
	p.begun(w)
	p.purges(time.UnixMilli(born), 10, 1)
	p.sees(w, rec.ID, rec.Version+1)
}

// scribble makes n writers write and delete at the same time, and returns the
// version that must be delivered of each record at least.
func (p *probe) scribble(writers, each int) map[backend.ID]uint64 {
	p.Helper()
	want, err := scribble(p.ctx, p.store, writers, each)
	if err != nil {
		p.broken("a Put or Delete failed: %v", err)
	}
	return want
}

func scribble(ctx context.Context, s backend.Store, writers, each int) (map[backend.ID]uint64, error) {
	var mu sync.Mutex
	want := make(map[backend.ID]uint64)
	err := parallel(writers*each, writers, func(i int) error {
		rec := sample(50_000 + i) // no other check's
		v, err := s.Put(ctx, rec, backend.IfAbsent())
		if err == nil && i%2 == 0 {
			v, err = s.Put(ctx, rec, backend.IfVersion(v))
		}
		if err == nil && i%6 == 0 {
			err = s.Delete(ctx, rec.ID, v)
			v++
		}
		mu.Lock()
		defer mu.Unlock()
		want[rec.ID] = v
		return err
	})
	return want, err
}

func checkManyWriters(p *probe) {
	watches := []*watch{p.watch(nil), p.watch(nil)}
	for _, w := range watches {
		defer w.stop()
		p.begun(w)
	}
	for id, version := range p.scribble(16, 25) {
		for _, w := range watches {
			p.sees(w, id, version)
		}
	}
}

func checkResume(p *probe) {
	first := p.create(sample(0))
	w := p.watch(nil)
	p.begun(w)
	start := w.token()
	first = p.overwrite(first)
	p.sees(w, first.ID, first.Version)
	middle := w.token()
	w.stop()

	// While nobody watches.
	want := p.scribble(2, 20)
	for range 2 { // a token is not used up
		for _, from := range []backend.Token{start, middle} {
			w := p.watch(from)
			for id, version := range want {
				p.sees(w, id, version)
			}
			if _, resets := w.count(); resets > 0 {
				w.stop()
				p.broken("a token that is some changes old got a Reset: its history cannot have been lost")
			}
			w.stop()
		}
	}
	again := p.watch(start)
	p.sees(again, first.ID, first.Version)
	p.begun(again)
	end := again.token()
	again.stop()
	rec := p.create(sample(10_000))
	last := p.watch(end)
	defer last.stop()
	p.sees(last, rec.ID, rec.Version)
}

// checkResumeUnderWrites takes up the feed anew after every Batch while writers
// commit in an order of their own: a feed that follows a sequence number skips
// what was numbered early and committed late.
func checkResumeUnderWrites(p *probe) {
	var token backend.Token
	if !p.follow(nil, func(b backend.Batch) bool { token = b.Token; return true }) {
		p.broken("the first Batch did not come within %v", p.opts.Patience)
	}
	got := make(map[backend.ID]uint64)
	one := func() {
		ok := p.follow(token, func(b backend.Batch) bool {
			for _, c := range b.Changes {
				got[c.ID] = max(got[c.ID], c.Version)
			}
			token = b.Token
			return true
		})
		if !ok {
			p.broken("a resumed feed sent no Batch within %v", p.opts.Patience)
		}
	}
	var want map[backend.ID]uint64
	var err error
	written := make(chan struct{})
	go func() {
		defer close(written)
		want, err = scribble(p.ctx, p.store, 16, 40)
	}()
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
		}
		one()
	}
	if err != nil {
		p.broken("a Put or Delete failed: %v", err)
	}
	missing := func() (id backend.ID, n int) {
		for wanted, version := range want {
			if got[wanted] < version {
				id = wanted
				n++
			}
		}
		return id, n
	}
	if !p.eventually(func() bool {
		one()
		_, n := missing()
		return n == 0
	}) {
		id, n := missing()
		p.broken("a consumer that resumed after every Batch missed %d of %d records, one of them %x", n, len(want), id)
	}
}

func checkForeignToken(p *probe) {
	other, discard := p.another()
	defer discard()
	q := *p
	q.store = other
	var foreign backend.Token
	q.create(sample(1))
	q.create(sample(2))
	if !q.follow(nil, func(b backend.Batch) bool { foreign = b.Token; return true }) {
		p.broken("the first Batch did not come within %v", p.opts.Patience)
	}
	p.create(sample(1))
	for name, token := range map[string]backend.Token{
		"of another store": foreign, "of no store": {1, 2, 3}, "that is empty but not nil": {}, "that is cut": foreign[:len(foreign)/2],
	} {
		w := p.watch(token)
		p.begun(w)
		_, resets := w.count()
		w.stop()
		if resets == 0 {
			p.broken("a token %s was taken up without a Reset", name)
		}
	}
}

func checkWatchError(p *probe) {
	mine := errors.New("an error of fn's own")
	w := p.watchWith(nil, func(backend.Batch) error { return mine })
	if !p.waited(w.done) {
		w.cancel()
		p.broken("a Watch goes on after fn returned an error")
	}
	if !errors.Is(w.err, mine) {
		p.broken("Watch returned (%v), where fn had returned (%v)", w.err, mine)
	}
}

// checkSlowConsumer blocks in fn. Writers and the other consumer must not notice,
// and in the end it must have heard of everything, or of a Reset.
func checkSlowConsumer(p *probe) {
	blocked, release := make(chan struct{}), make(chan struct{})
	var free sync.Once
	let := func() { free.Do(func() { close(release) }) }
	first := true
	slow := p.watchWith(nil, func(backend.Batch) error {
		if first {
			first = false
			close(blocked)
			<-release
		}
		return nil
	})
	defer slow.stop()
	defer let()
	if !p.waited(blocked) {
		p.broken("the first Batch did not come within %v", p.opts.Patience)
	}
	quick := p.watch(nil)
	defer quick.stop()
	defer let() // before any waiting for another
	p.begun(quick)

	const n = 3000
	recs := make([]backend.Record, n)
	var err error
	p.within(fmt.Sprintf("the writing of %d records, while a consumer of the feed is slow,", n), func() {
		err = parallel(n, 64, func(i int) (err error) {
			recs[i] = sample(i)
			recs[i].Version, err = p.store.Put(p.ctx, recs[i], backend.IfAbsent())
			return err
		})
	})
	if err != nil {
		p.broken("a Put failed while a consumer of the feed was slow: %v", err)
	}
	for _, rec := range recs {
		p.sees(quick, rec.ID, rec.Version)
	}
	let()
	for _, rec := range recs {
		p.await(slow, "what changed while the consumer was slow, or a Reset,", func() bool {
			_, resets := slow.count()
			return resets > 0 || slow.has(rec.ID, rec.Version)
		})
	}
}
