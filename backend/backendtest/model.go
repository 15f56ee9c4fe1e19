package backendtest

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
)

// model runs random operations on the store and on the simplest store there can
// be, and compares every answer.
func (s *suite) model() {
	for seed := range uint64(5) {
		s.modelRun(rand.New(rand.NewPCG(seed, 99)), seed)
	}
}

func (s *suite) modelRun(rng *rand.Rand, seed uint64) {
	st := s.open()
	l, lists := capability[backend.Lister](s, st, "Lister")
	p, purges := capability[backend.Purger](s, st, "Purger")
	ctx := s.Context()
	simple := map[backend.ID]backend.Record{}
	deleted := map[backend.ID]bool{}
	fail := func(step int, what string, got, want any) {
		s.Helper()
		s.breaks("R2", "the store answers as the simplest one would", "seed %d, step %d, %s: got %v, want %v", seed, step, what, got, want)
	}
	for step := range 600 {
		rec := sample(rng.IntN(25))
		rec.Body = []byte{byte(step), byte(step >> 8)}
		rec.Expires, rec.PurgeAt = rng.Int64N(50), rng.Int64N(3)*rng.Int64N(20)
		have, there := simple[rec.ID]
		switch rng.IntN(10) {
		case 0, 1, 2:
			if deleted[rec.ID] {
				continue // an ID is not created again
			}
			v, err := st.Put(ctx, rec, backend.IfAbsent())
			if there != errors.Is(err, backend.ErrConflict) || !there && err != nil {
				fail(step, "put if absent", err, there)
			}
			if err == nil {
				rec.Version = v
				simple[rec.ID] = rec
			}
		case 3, 4, 5:
			with := have.Version + uint64(rng.IntN(5)/4)
			v, err := st.Put(ctx, rec, backend.IfVersion(with))
			switch {
			case !there && errors.Is(err, backend.ErrNotFound), there && with != have.Version && errors.Is(err, backend.ErrConflict):
			case there && with == have.Version && err == nil && v > have.Version:
				rec.Version = v
				simple[rec.ID] = rec
			default:
				fail(step, "put if version", err, there)
			}
		case 6:
			err := st.Delete(ctx, rec.ID, have.Version)
			if there != (err == nil) {
				fail(step, "delete", err, there)
			}
			deleted[rec.ID] = deleted[rec.ID] || there
			delete(simple, rec.ID)
		case 7:
			if !purges {
				continue
			}
			before, want := rng.Int64N(25), 0
			for rid, r := range simple {
				if r.PurgeAt != 0 && r.PurgeAt <= before {
					want++
					deleted[rid] = true
					delete(simple, rid)
				}
			}
			if n, err := p.Purge(ctx, time.UnixMilli(before), backend.MaxLimit); err != nil || n != want {
				fail(step, "purge", n, want)
			}
		default:
			got, err := st.Get(ctx, rec.ID)
			if there != (err == nil) || there && !equal(got, have) {
				fail(step, "get", got, have)
			}
		}
		if lists && step%50 == 0 {
			s.compareLists(l, simple, fail, step)
		}
	}
}

func (s *suite) compareLists(l backend.Lister, simple map[backend.ID]backend.Record, fail func(int, string, any, any), step int) {
	for _, q := range []backend.Query{
		{Kind: 1, Limit: 3}, {Kind: 1, Owner: "owner-2", Limit: 2}, {Kind: 1, Parent: id(1_000_001)}, {Kind: 1, ExpiresBefore: 30, Limit: 4},
	} {
		var want []backend.Record
		for _, r := range simple {
			if (q.Owner == "" || r.Owner == q.Owner) && (q.Parent == backend.ID{} || r.Parent == q.Parent) &&
				(q.ExpiresBefore == 0 || r.Expires != 0 && r.Expires < q.ExpiresBefore) {
				want = append(want, r)
			}
		}
		slices.SortFunc(want, func(a, b backend.Record) int {
			if q.ExpiresBefore != 0 && a.Expires != b.Expires {
				return cmp.Compare(a.Expires, b.Expires)
			}
			if q.ExpiresBefore != 0 {
				return slices.Compare(a.ID[:], b.ID[:])
			}
			return byCreated(a, b)
		})
		got := s.walk(l, q, nil)
		if !slices.EqualFunc(got, want, equal) {
			fail(step, "list", ids(got), ids(want))
		}
	}
}
