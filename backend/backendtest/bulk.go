package backendtest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
)

func bulkChecks() []check {
	many, all := []Capability{BulkReader}, []Capability{Scanner}
	return []check{
		{19, "GetMany answers as Get does", many, checkGetMany},
		{19, "GetMany sees what was put before", many, checkGetManyIsFresh},
		{19, "the most that GetMany reads", many, checkGetManyMost},
		{6, "what GetMany and Scan hand out", []Capability{BulkReader, Scanner}, checkBulkBodies},
		{20, "Scan delivers every record", all, checkScan},
		{20, "Scan while others write", all, checkScanUnderWrites},
		{20, "fn's error ends the Scan", all, checkScanError},
		{4, "a bulk read whose context is done", []Capability{BulkReader, Scanner}, checkBulkContext},
	}
}

// getMany asks for records, and returns them by their IDs.
func (p *probe) getMany(asked ...backend.ID) map[backend.ID]backend.Record {
	p.Helper()
	got, err := capability[backend.BulkReader](p).GetMany(p.ctx, asked)
	p.answers(err, nil, "GetMany")
	found := make(map[backend.ID]backend.Record)
	for _, rec := range got {
		if _, twice := found[rec.ID]; twice {
			p.broken("GetMany returned record %x twice, and was asked for it once", rec.ID)
		}
		found[rec.ID] = rec
	}
	return found
}

// matches requires that a record was found as it is.
func (p *probe) matches(what string, found map[backend.ID]backend.Record, want backend.Record) {
	p.Helper()
	got, ok := found[want.ID]
	switch {
	case !ok:
		p.broken("%s left out record %x", what, want.ID)
	case !same(got, want) || got.Version != want.Version:
		p.broken("%s returned %v, where the record is %v", what, show(got), show(want))
	}
}

func checkGetMany(p *probe) {
	if len(p.getMany()) != 0 || len(p.getMany(idOf(1), idOf(2))) != 0 {
		p.broken("GetMany found records that nobody has put")
	}
	recs := mixed(50)
	for i := range recs {
		recs[i] = p.create(recs[i])
	}
	recs[7] = p.overwrite(recs[7])
	p.remove(recs[9])
	asked := []backend.ID{idOf(999)}
	for _, rec := range recs {
		asked = append(asked, rec.ID)
	}
	before := slices.Clone(asked)
	found := p.getMany(asked...)
	if !slices.Equal(asked, before) {
		p.broken("GetMany changed the slice of IDs that it was given")
	}
	for i, rec := range recs {
		if i == 9 {
			continue
		}
		p.matches("GetMany", found, rec)
	}
	if len(found) != len(recs)-1 {
		p.broken("GetMany returned %d records, want %d: one was deleted, and one was never there", len(found), len(recs)-1)
	}
	one := p.getMany(recs[3].ID)
	p.matches("GetMany of one", one, recs[3])
	got, err := capability[backend.BulkReader](p).GetMany(p.ctx, []backend.ID{recs[3].ID, recs[4].ID, recs[3].ID})
	p.answers(err, nil, "GetMany of an ID twice")
	if n := len(got); n != 2 && n != 3 {
		p.broken("GetMany of two IDs, one of them twice, returned %d records", n)
	}
}

func checkGetManyIsFresh(p *probe) {
	recs := []backend.Record{p.create(sample(0)), p.create(sample(1)), p.create(sample(2))}
	err := parallel(200, 8, func(i int) error {
		rec := sample(100 + i)
		v, err := p.store.Put(p.ctx, rec, backend.IfAbsent())
		if err != nil {
			return err
		}
		got, err := capability[backend.BulkReader](p).GetMany(p.ctx, []backend.ID{recs[i%3].ID, rec.ID})
		if err == nil && !slices.ContainsFunc(got, func(r backend.Record) bool { return r.ID == rec.ID && r.Version == v }) {
			return errors.New("a record that had been put before was not found")
		}
		return err
	})
	if err != nil {
		p.broken("GetMany, while others write: %v", err)
	}
}

func checkGetManyMost(p *probe) {
	asked := make([]backend.ID, backend.MaxLimit+1)
	for i := range asked {
		asked[i] = idOf(i + 1)
	}
	var want []backend.Record
	for i := range 20 {
		rec := sample(1)
		rec.ID = asked[i*53%backend.MaxLimit]
		want = append(want, p.create(rec))
	}
	found := p.getMany(asked[:backend.MaxLimit]...)
	for _, rec := range want {
		p.matches("GetMany of as many as there may be", found, rec)
	}
	_, err := capability[backend.BulkReader](p).GetMany(p.ctx, asked)
	p.answers(err, backend.ErrInvalid, "GetMany of too many")
}

// scan is all records of a kind.
func (p *probe) scan(kind backend.Kind) map[backend.ID]backend.Record {
	p.Helper()
	found := make(map[backend.ID]backend.Record)
	err := capability[backend.Scanner](p).Scan(p.ctx, kind, func(recs []backend.Record) error {
		if len(recs) == 0 {
			return errors.New("fn was called without a record")
		}
		for _, rec := range recs {
			found[rec.ID] = rec
		}
		return nil
	})
	p.answers(err, nil, "Scan")
	return found
}

func checkScan(p *probe) {
	if len(p.scan(1)) != 0 {
		p.broken("Scan found records in an empty store")
	}
	recs := mixed(3 * backend.MaxLimit / 2)
	if err := parallel(len(recs), 64, func(i int) (err error) {
		recs[i].Version, err = p.store.Put(p.ctx, recs[i], backend.IfAbsent())
		return err
	}); err != nil {
		p.broken("a Put failed: %v", err)
	}
	recs[0] = p.overwrite(recs[0])
	p.remove(recs[2])
	want := make(map[backend.Kind][]backend.Record)
	for i, rec := range recs {
		if i != 2 {
			want[rec.Kind] = append(want[rec.Kind], rec)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(want)) {
		found := p.scan(kind)
		for _, rec := range want[kind] {
			p.matches("Scan", found, rec)
		}
		if len(found) != len(want[kind]) {
			p.broken("Scan of kind %d delivered %d records, want %d", kind, len(found), len(want[kind]))
		}
	}
	if len(p.scan(77)) != 0 {
		p.broken("Scan of a Kind that no record has delivered some")
	}
	err := capability[backend.Scanner](p).Scan(p.ctx, 0, func([]backend.Record) error { return nil })
	p.answers(err, backend.ErrInvalid, "Scan without a Kind")
}

// checkScanUnderWrites scans while other records come and go, and these are overwritten.
func checkScanUnderWrites(p *probe) {
	const n = 1200
	recs := make([]backend.Record, n)
	if err := parallel(n, 64, func(i int) (err error) {
		recs[i] = sample(i)
		recs[i].Version, err = p.store.Put(p.ctx, recs[i], backend.IfAbsent())
		return err
	}); err != nil {
		p.broken("a Put failed: %v", err)
	}
	stop := p.load()
	defer stop()
	var over atomic.Bool
	var err error
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 0; !over.Load(); i++ {
			rec := &recs[i*7%n]
			if rec.Version, err = p.store.Put(p.ctx, *rec, backend.IfVersion(rec.Version)); err != nil {
				return
			}
		}
	}()
	var found map[backend.ID]backend.Record
	for range 3 {
		found = p.scan(recs[0].Kind)
		for i := range recs {
			if _, ok := found[idOf(i)]; !ok {
				over.Store(true)
				<-written
				p.broken("a Scan left out a record that was there all the time, and was overwritten meanwhile")
			}
		}
	}
	over.Store(true)
	<-written
	p.answers(err, nil, "a Put during a Scan")
}

func checkScanError(p *probe) {
	p.create(sample(1))
	mine := errors.New("an error of fn's own")
	var err error
	p.within("a Scan whose fn has failed", func() {
		err = capability[backend.Scanner](p).Scan(p.ctx, sample(1).Kind, func([]backend.Record) error { return mine })
	})
	if !errors.Is(err, mine) {
		p.broken("Scan returned (%v), where fn had returned (%v)", err, mine)
	}
	p.holds(p.create(sample(2))) // and the store goes on
}

func checkBulkBodies(p *probe) {
	want := []backend.Record{p.create(sample(1)), p.create(sample(2))}
	for range 2 {
		for _, found := range []map[backend.ID]backend.Record{p.getMany(want[0].ID, want[1].ID), p.scan(want[0].Kind)} {
			for _, rec := range want {
				p.matches("a bulk read, after what the one before had returned was overwritten in memory,", found, rec)
				clear(found[rec.ID].Body)
			}
		}
	}
}

func checkBulkContext(p *probe) {
	rec := p.create(sample(1))
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	_, err := capability[backend.BulkReader](p).GetMany(ctx, []backend.ID{rec.ID})
	p.answers(err, context.Canceled, "GetMany whose context is done")
	err = capability[backend.Scanner](p).Scan(ctx, rec.Kind, func([]backend.Record) error { return errors.New("fn was called") })
	p.answers(err, context.Canceled, "Scan whose context is done")
}
