package backendtest

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
)

func recordChecks() []check {
	return []check{
		{2, "what was Put is what Get returns", nil, checkRoundTrip},
		{5, "Get sees the last Put at once", nil, checkReadYourWrites},
		{10, "a record that is missing", nil, checkMissing},
		{10, "a record that exists already", nil, checkDuplicate},
		{10, "a version that is no longer current", nil, checkStaleVersion},
		{10, "what never changes", nil, checkImmutable},
		{1, "arguments out of range", nil, checkLimits},
		{8, "versions are the store's own", nil, checkVersions},
		{8, "versions rise across a Delete", nil, checkVersionsAcrossDelete},
		{10, "a deleted record is gone", nil, checkDelete},
		{10, "an engine that is cut off", nil, checkCutOff},
	}
}

func checkRoundTrip(p *probe) {
	full := sample(1)
	full.Parent, full.Expires, full.PurgeAt, full.Labels = idOf(1000), born+5, born+7, []string{"a", "b\x00"}
	bare := backend.Record{ID: idOf(2), Kind: 255}
	bytesBody := sample(3)
	bytesBody.Body = make([]byte, 256)
	for i := range bytesBody.Body {
		bytesBody.Body[i] = byte(i)
	}
	big := sample(4)
	big.Body = bytes.Repeat([]byte{0, 0xff, '\n', 'x'}, backend.MaxBody/4)
	empty := sample(5)
	empty.Body = []byte{}
	recs := []backend.Record{full, bare, bytesBody, big, empty}
	for i := range recs {
		recs[i] = p.create(recs[i])
	}
	for i := range recs {
		p.holds(recs[i])
	}
	full = recs[0]
	full.Expires, full.PurgeAt, full.Labels, full.Body = 0, born+9, []string{"b"}, []byte("another body")
	full = p.overwrite(full)
	p.holds(full)
	for _, other := range recs[1:] {
		p.holds(other)
	}
}

func checkReadYourWrites(p *probe) {
	rec := p.create(sample(1))
	for n := range 100 {
		rec.Body = []byte{byte(n)}
		rec = p.overwrite(rec)
		p.holds(rec)
	}
	// Whoever made it: each of these Puts is made in another goroutine.
	for n := range 100 {
		rec.Body = []byte{1, byte(n)}
		err := parallel(1, 1, func(int) (err error) {
			rec.Version, err = p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
			return err
		})
		if err != nil {
			p.broken("a Put whose condition holds failed: %v", err)
		}
		p.holds(rec)
	}
	p.remove(rec)
	p.lacks(rec.ID)
}

func checkMissing(p *probe) {
	p.create(sample(1))
	p.lacks(idOf(2))
	for _, v := range []uint64{0, 1, math.MaxInt64} {
		_, err := p.store.Put(p.ctx, sample(2), backend.IfVersion(v))
		p.answers(err, backend.ErrNotFound, "Put IfVersion(%d) of a record that was never there", v)
		p.answers(p.store.Delete(p.ctx, idOf(2), v), backend.ErrNotFound, "Delete of a record that was never there")
	}
	p.lacks(idOf(2))
}

func checkDuplicate(p *probe) {
	rec := p.create(sample(1))
	again := rec
	again.Body = []byte("another body")
	for range 3 {
		_, err := p.store.Put(p.ctx, again, backend.IfAbsent())
		p.answers(err, backend.ErrConflict, "Put IfAbsent of a record that exists")
		_, err = p.store.Put(p.ctx, rec, backend.IfAbsent())
		p.answers(err, backend.ErrConflict, "Put IfAbsent of an equal record that exists")
		p.holds(rec)
	}
}

func checkStaleVersion(p *probe) {
	old := p.create(sample(1))
	cur := old
	cur.Body = []byte("second")
	cur = p.overwrite(cur)
	for _, v := range []uint64{0, old.Version, cur.Version + 1, math.MaxInt64} {
		attempt := cur
		attempt.Body = []byte("third")
		_, err := p.store.Put(p.ctx, attempt, backend.IfVersion(v))
		p.answers(err, backend.ErrConflict, "Put IfVersion(%d) of a record with version %d", v, cur.Version)
		p.answers(p.store.Delete(p.ctx, cur.ID, v), backend.ErrConflict, "Delete with version %d of a record with version %d", v, cur.Version)
		p.holds(cur)
	}
}

func checkImmutable(p *probe) {
	base := sample(1)
	base.Parent = idOf(1000)
	rec := p.create(base)
	changes := map[string]func(*backend.Record){
		"Kind":         func(r *backend.Record) { r.Kind++ },
		"Owner":        func(r *backend.Record) { r.Owner = "another" },
		"Owner's case": func(r *backend.Record) { r.Owner = strings.ToUpper(r.Owner) },
		"no Owner":     func(r *backend.Record) { r.Owner = "" },
		"Parent":       func(r *backend.Record) { r.Parent[15]++ },
		"no Parent":    func(r *backend.Record) { r.Parent = backend.ID{} },
		"Created":      func(r *backend.Record) { r.Created++ },
	}
	for name, change := range changes {
		other := rec
		change(&other)
		_, err := p.store.Put(p.ctx, other, backend.IfVersion(rec.Version))
		p.answers(err, backend.ErrInvalid, "Put that changes %s", name)
		p.holds(rec)
	}
}

func checkLimits(p *probe) {
	bad := map[string]func(*backend.Record){
		"a zero ID":          func(r *backend.Record) { r.ID = backend.ID{} },
		"a zero Kind":        func(r *backend.Record) { r.Kind = 0 },
		"too long an Owner":  func(r *backend.Record) { r.Owner = strings.Repeat("o", backend.MaxOwner+1) },
		"too long a Body":    func(r *backend.Record) { r.Body = make([]byte, backend.MaxBody+1) },
		"a negative Created": func(r *backend.Record) { r.Created = -1 },
		"a negative Expires": func(r *backend.Record) { r.Expires = -1 },
		"a negative PurgeAt": func(r *backend.Record) { r.PurgeAt = math.MinInt64 },
	}
	for name, spoil := range bad {
		rec := sample(1)
		spoil(&rec)
		_, err := p.store.Put(p.ctx, rec, backend.IfAbsent())
		p.answers(err, backend.ErrInvalid, "Put with %s", name)
		p.lacks(idOf(1))
	}
	_, err := p.store.Put(p.ctx, sample(1), backend.Cond{})
	p.answers(err, backend.ErrInvalid, "Put with the zero Cond")
	p.lacks(idOf(1))

	edge := sample(2) // the limits themselves are inside
	edge.Owner, edge.Body = strings.Repeat("o", backend.MaxOwner), make([]byte, backend.MaxBody)
	edge = p.create(edge)
	p.holds(edge)
	_, err = p.store.Put(p.ctx, edge, backend.Cond{})
	p.answers(err, backend.ErrInvalid, "Put with the zero Cond")
	for name, spoil := range bad {
		if name == "a zero ID" {
			continue
		}
		rec := edge
		spoil(&rec)
		_, err := p.store.Put(p.ctx, rec, backend.IfVersion(edge.Version))
		p.answers(err, backend.ErrInvalid, "Put IfVersion with %s", name)
		p.holds(edge)
	}
}

func checkVersions(p *probe) {
	rec := sample(1)
	rec.Version = 1 << 40 // ignored in what is put
	rec = p.create(rec)
	if rec.Version == 0 {
		p.broken("the first version of a record is 0")
	}
	p.holds(rec)
	for range 20 {
		next := rec
		next.Version = 1 << 50
		v, err := p.store.Put(p.ctx, next, backend.IfVersion(rec.Version))
		p.answers(err, nil, "Put IfVersion of the current version")
		if v <= rec.Version {
			p.broken("a Put over version %d returned version %d", rec.Version, v)
		}
		rec.Version = v
		p.holds(rec)
	}
}

func checkVersionsAcrossDelete(p *probe) {
	rec := p.create(sample(1))
	var old []uint64
	for range 3 {
		rec = p.overwrite(rec)
		old = append(old, rec.Version)
		p.remove(rec)
		again := p.create(rec)
		if again.Version <= rec.Version {
			p.broken("the record had version %d, was deleted and created again, and has version %d: a Put that saw the first one could overwrite the second",
				rec.Version, again.Version)
		}
		rec = again
		for _, v := range old {
			_, err := p.store.Put(p.ctx, rec, backend.IfVersion(v))
			p.answers(err, backend.ErrConflict, "Put IfVersion(%d) from before the Delete, over version %d", v, rec.Version)
		}
	}
}

func checkDelete(p *probe) {
	rec, other := p.create(sample(1)), p.create(sample(2))
	p.remove(rec)
	p.lacks(rec.ID)
	p.answers(p.store.Delete(p.ctx, rec.ID, rec.Version), backend.ErrNotFound, "a second Delete")
	_, err := p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
	p.answers(err, backend.ErrNotFound, "Put IfVersion of a deleted record")
	p.lacks(rec.ID)
	p.holds(other)
	if l, ok := optional[backend.Lister](p); ok {
		recs, err := walk(p.ctx, l, backend.Query{Kind: 1}, nil)
		if err != nil || !slices.Equal(ids(recs), []backend.ID{other.ID}) {
			p.broken("a list after a Delete has %d records (%v), want the one that is left", len(recs), err)
		}
	}
}

// checkCutOff is about sentinels: "surely not" must be sure.
func checkCutOff(p *probe) {
	if p.opts.Cut == nil {
		p.Logf("Options.Cut is not set: nothing to test")
		return
	}
	rec := p.create(sample(1))
	heal := p.opts.Cut(p.t, p.store)
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	next := rec
	next.Body = []byte("written while cut off")
	var v uint64
	var getErr, putErr error
	p.within("a call of a store whose engine is cut off, past its deadline", func() {
		_, getErr = p.store.Get(ctx, rec.ID)
		v, putErr = p.store.Put(ctx, next, backend.IfVersion(rec.Version))
	})
	heal()
	if !is(getErr, backend.ErrUnavailable) && !ofContext(getErr) {
		p.broken("Get from an engine that is cut off answered (%v), want (%v) or the context's error", getErr, backend.ErrUnavailable)
	}
	var got backend.Record
	if !p.eventually(func() bool {
		var err error
		got, err = p.store.Get(p.ctx, rec.ID)
		return err == nil
	}) {
		p.broken("the engine is back, and Get still fails")
	}
	applied := got.Version != rec.Version
	switch {
	case putErr == nil && got.Version == v:
	case is(putErr, backend.ErrIndeterminate):
	case (is(putErr, backend.ErrUnavailable) || ofContext(putErr)) && !applied:
	default:
		p.broken("Put to an engine that is cut off answered (%d, %v), and the record went from version %d to %d", v, putErr, rec.Version, got.Version)
	}
}

func memoryChecks() []check {
	lister, usage, watcher := []Capability{Lister}, []Capability{UsageRecorder}, []Capability{Watcher}
	return []check{
		{6, "the Body that was put", nil, checkPutBody},
		{6, "the Body that Get returned", nil, checkGotBody},
		{6, "the records of a Page", lister, checkPageBodies},
		{6, "the slices of usage", usage, checkUsageSlices},
		{6, "the slices of a Batch", watcher, checkBatchSlices},
	}
}

func checkPutBody(p *probe) {
	want := sample(1)
	rec := want
	rec.Body = append(make([]byte, 0, 100), want.Body...) // room behind it
	want.Version = p.create(rec).Version
	clear(rec.Body[:cap(rec.Body)])
	p.holds(want)

	rec.Body = append(rec.Body[:0], "second"...)
	want.Body, want.Version = []byte("second"), p.put(rec, backend.IfVersion(want.Version)).Version
	copy(rec.Body, "xxxxxx")
	p.holds(want)

	rec.Body = append(rec.Body[:0], "failed"...)
	_, _ = p.store.Put(p.ctx, rec, backend.IfAbsent()) // a conflict
	p.holds(want)
	if string(rec.Body[:cap(rec.Body)][:6]) != "failed" {
		p.broken("a Put changed the Body that it was given")
	}
}

func checkGotBody(p *probe) {
	want := p.create(sample(1))
	for range 3 {
		got, err := p.store.Get(p.ctx, want.ID)
		p.answers(err, nil, "Get")
		clear(got.Body[:cap(got.Body)])
		p.holds(want)
	}
	first, err := p.store.Get(p.ctx, want.ID)
	p.answers(err, nil, "Get")
	next := want
	next.Body = bytes.ToUpper(want.Body)
	p.overwrite(next)
	if !same(first, want) {
		p.broken("what Get had returned changed when the record was overwritten")
	}
	_, _ = p.store.Get(p.ctx, want.ID)
	p.create(sample(2))
	p.remove(p.create(sample(3)))
	if !same(first, want) {
		p.broken("what Get had returned changed later")
	}
}

func checkPageBodies(p *probe) {
	want := []backend.Record{p.create(sample(1)), p.create(sample(2))}
	q := backend.Query{Kind: 1, Owner: "owner", Limit: 10}
	for range 2 {
		for _, got := range p.walk(q) {
			clear(got.Body[:cap(got.Body)])
		}
		p.holds(want[0])
		p.holds(want[1])
	}
	got := p.walk(q)
	if len(got) != 2 || !same(got[0], want[0]) || !same(got[1], want[1]) {
		p.broken("a list changed when its records were overwritten in memory")
	}
}

func checkUsageSlices(p *probe) {
	u := capability[backend.UsageRecorder](p)
	batch := []backend.Usage{{ID: idOf(1), N: 3, Last: born}, {ID: idOf(2), N: 4, Last: born}}
	p.answers(u.AddUsage(p.ctx, batch), nil, "AddUsage")
	clear(batch)
	asked := []backend.ID{idOf(1), idOf(2)}
	first, err := u.Usage(p.ctx, asked)
	p.answers(err, nil, "Usage")
	if !slices.Equal(asked, []backend.ID{idOf(1), idOf(2)}) {
		p.broken("Usage changed the slice of IDs that it was given")
	}
	clear(asked)
	clear(first)
	second, err := u.Usage(p.ctx, []backend.ID{idOf(1), idOf(2)})
	p.answers(err, nil, "Usage")
	want := []backend.Usage{{ID: idOf(1), N: 3, Last: born}, {ID: idOf(2), N: 4, Last: born}}
	if !slices.Equal(second, want) {
		p.broken("Usage is %v after its slices were overwritten in memory, want %v", second, want)
	}
}

func checkBatchSlices(p *probe) {
	// One consumer spoils all it is given; the other must not notice.
	spoiler := p.watchWith(nil, func(b backend.Batch) error {
		clear(b.Changes[:cap(b.Changes)])
		clear(b.Token[:cap(b.Token)])
		return nil
	})
	defer spoiler.stop()
	w := p.watch(nil)
	defer w.stop()
	p.begun(spoiler)
	p.begun(w)
	rec := p.create(sample(1))
	for range 20 {
		rec = p.overwrite(rec)
		p.sees(w, rec.ID, rec.Version)
	}
	from := w.token()
	again := slices.Clone(from)
	resumed := p.watch(again)
	defer resumed.stop()
	p.begun(resumed)
	clear(again)
	rec = p.overwrite(rec)
	p.sees(resumed, rec.ID, rec.Version)
	p.sees(w, rec.ID, rec.Version)
}
