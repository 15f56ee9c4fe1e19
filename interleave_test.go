package fob_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// An interleaving test runs a few callers, each a process of its own, over one store,
// in every order in which their calls of the store can come. Each call waits until the
// scheduler lets it go, and one goes at a time, so an order is a list of choices, and
// all lists are walked depth first. Orders that differ only in calls which cannot tell
// (two reads, or calls for two records) count as one: sleep sets, P. Godefroid,
// "Partial-Order Methods for the Verification of Concurrent Systems", 1996.
type interleaving struct {
	callers int
	// lost is how many writes are made whose answer the caller does not get: at each
	// write in turn.
	lost int
	// switches bounds how often a caller that could go on is left for another one;
	// negative is without bound. With three callers only bounded walks end.
	switches int
	short    bool // so few calls that two callers are walked without a bound
	config   fob.Config
	// prepare makes what the callers share, and returns what each of them does, and
	// what must hold afterwards.
	prepare func(t *testing.T, store backend.Store) (call func(ctx context.Context, m *fob.Manager, caller int) (any, error), check func(t *testing.T, results []result))
}

// result is what one caller was told.
type result struct {
	value any
	err   error
}

// maxSteps is more calls than any order takes in which somebody gets on.
const maxSteps = 600

// option is a choice of the scheduler: who goes, and whether he is told.
type option struct {
	caller int
	lose   bool
}

// place is a state in which there was a choice.
type place struct {
	options []option
	taken   int
	sleeps  []option // need not be tried here: an order that was walked begins so
}

// step is one call that waits.
type step struct {
	put bool
	id  backend.ID
}

func (s step) independent(o step) bool { return !s.put && !o.put || s.id != o.id }

// stepped is one caller's store.
type stepped struct {
	inner   backend.Store
	waiting chan step
	proceed chan option
}

func (s *stepped) wait(put bool, id backend.ID) (lose bool) {
	s.waiting <- step{put, id}
	return (<-s.proceed).lose
}

func (s *stepped) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.wait(false, id)
	return s.inner.Get(ctx, id)
}

func (s *stepped) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	lose := s.wait(true, rec.ID)
	version, err := s.inner.Put(ctx, rec, cond)
	if lose && err == nil {
		return 0, backendtest.LostAck().Lose
	}
	return version, err
}

func (s *stepped) Delete(ctx context.Context, id backend.ID, version uint64) error {
	s.wait(true, id)
	return s.inner.Delete(ctx, id, version)
}

func (s *stepped) Close() error { return nil }

// walk runs every order.
func (x interleaving) walk(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var path []*place
		orders := 0
		for {
			if x.once(t, &path) {
				orders++
			}
			for len(path) > 0 && path[len(path)-1].taken == len(path[len(path)-1].options)-1 {
				path = path[:len(path)-1]
			}
			if len(path) == 0 {
				break
			}
			path[len(path)-1].taken++
		}
		require.Greater(t, orders, x.callers)
		t.Logf("%d orders of calls", orders)
	})
}

// once runs the order that path begins with, and adds to path the choices after that.
// It reports false if that order need not be walked to its end.
func (x interleaving) once(t *testing.T, path *[]*place) (whole bool) {
	inner := memory.New()
	call, check := x.prepare(t, inner)
	stores, results := make([]*stepped, x.callers), make([]result, x.callers)
	ended := make(chan int)
	for i := range stores {
		stores[i] = &stepped{inner: inner, waiting: make(chan step), proceed: make(chan option)}
		cfg := x.config
		cfg.Prefix, cfg.CacheEntries, cfg.SweepInterval, cfg.UsageInterval = "acme_live", 16, -1, 10000*time.Hour
		m, err := fob.New(stores[i], cfg)
		require.NoError(t, err)
		defer m.Close()
		go func() {
			value, err := call(context.Background(), m, i)
			results[i] = result{value, err}
			ended <- i
		}()
	}
	s := schedule{interleaving: x, waits: make([]*step, x.callers), paused: make([]bool, x.callers), moved: make([]uint, x.callers), last: -1, whole: true}
	for i := range stores {
		s.moves(i, stores, ended)
	}
	for depth := 0; s.running(); depth++ {
		require.Less(t, depth, maxSteps, "nobody gets on")
		o := s.choose(path, depth)
		s.letGo(o, stores, ended)
	}
	if s.whole {
		check(t, results)
		if t.Failed() {
			t.Fatalf("after the choices %v", s.chosen)
		}
	}
	return s.whole
}

// schedule is one run.
type schedule struct {
	interleaving
	waits    []*step // nil: has ended
	paused   []bool  // has let time pass since its last call: leaves each other one a turn
	moved    []uint  // who has had one since
	last     int     // who went last
	switched int
	missed   int // answers that were lost
	sleeps   []option
	whole    bool
	chosen   []option
}

func (s *schedule) running() bool {
	return slices.ContainsFunc(s.waits, func(w *step) bool { return w != nil })
}

// moves waits until a caller is at its next call, or has ended.
func (s *schedule) moves(i int, stores []*stepped, ended <-chan int) {
	began := time.Now()
	select {
	case next := <-stores[i].waiting:
		s.waits[i] = &next
	case <-ended:
		s.waits[i] = nil
	}
	s.paused[i] = time.Since(began) > 0
}

func (s *schedule) letGo(o option, stores []*stepped, ended <-chan int) {
	if s.last >= 0 && s.last != o.caller && s.waits[s.last] != nil && !s.paused[s.last] {
		s.switched++
	}
	if o.lose {
		s.missed++
	}
	s.last = o.caller
	s.chosen = append(s.chosen, o)
	for i := range s.moved {
		s.moved[i] |= 1 << o.caller
	}
	s.paused[o.caller], s.moved[o.caller] = false, 0
	stores[o.caller].proceed <- o
	s.moves(o.caller, stores, ended)
}

// choose takes the choice of path at a depth, or the first one that there is now.
func (s *schedule) choose(path *[]*place, depth int) option {
	if !s.whole { // only to its end
		return option{caller: slices.IndexFunc(s.waits, func(w *step) bool { return w != nil })}
	}
	if depth == len(*path) {
		p := &place{options: s.options(), sleeps: s.sleeps}
		if len(p.options) == 0 {
			s.whole = false
			return s.choose(path, depth)
		}
		*path = append(*path, p)
	}
	p := (*path)[depth]
	o := p.options[p.taken]
	s.sleeps = nil
	if s.switches < 0 {
		for _, other := range slices.Concat(p.sleeps, p.options[:p.taken]) {
			if other.caller != o.caller && s.waits[other.caller].independent(*s.waits[o.caller]) {
				s.sleeps = append(s.sleeps, other)
			}
		}
	}
	return o
}

// options are the choices that there are now.
func (s *schedule) options() []option {
	var all, late []option
	for i, w := range s.waits {
		if w == nil {
			continue
		}
		if s.switches >= 0 && s.switched >= s.switches && s.last >= 0 && s.last != i && s.waits[s.last] != nil && !s.paused[s.last] {
			continue
		}
		for _, lose := range []bool{false, true} {
			o := option{i, lose}
			if lose && (!w.put || s.missed >= s.lost) || slices.Contains(s.sleeps, o) {
				continue
			}
			if s.waitsForOthers(i) {
				late = append(late, o)
			} else {
				all = append(all, o)
			}
		}
	}
	if len(all) == 0 {
		return late
	}
	return all
}

// waitsForOthers reports whether a caller that has let time pass is not yet due.
func (s *schedule) waitsForOthers(i int) bool {
	for other, w := range s.waits {
		if s.paused[i] && other != i && w != nil && s.moved[i]&(1<<other) == 0 {
			return true
		}
	}
	return false
}

// after makes a Manager that looks at what the callers have left.
func after(t *testing.T, store backend.Store, cfg fob.Config) *fob.Manager {
	t.Helper()
	cfg.CacheEntries, cfg.UsageInterval = 16, 10000*time.Hour
	return bareManager(t, store, cfg)
}

// walks runs a test with two callers that interrupt each other up to three times (what
// goes wrong goes wrong with fewer; without a bound, of two imports there are 45,000
// orders, which takes minutes), with two where one answer is lost, and with three that
// are seldom interrupted.
func (x interleaving) walks(t *testing.T) {
	t.Run("two", func(t *testing.T) {
		x.callers, x.lost, x.switches = 2, 0, 3
		if x.short {
			x.switches = -1
		}
		x.walk(t)
	})
	t.Run("two, an answer lost", func(t *testing.T) {
		x.callers, x.lost, x.switches = 2, 1, 1
		x.walk(t)
	})
	t.Run("three", func(t *testing.T) {
		x.callers, x.lost, x.switches = 3, 0, 1
		x.walk(t)
	})
}

// winners are the indices of those who were told that they have done it.
func winners(results []result) (won []int) {
	for i, r := range results {
		if r.err == nil {
			won = append(won, i)
		}
	}
	return won
}

// mustBeTold asserts that who did not win was told that it was done already.
func mustBeTold(t *testing.T, results []result) {
	t.Helper()
	for _, r := range results {
		if r.err != nil {
			require.ErrorIs(t, r.err, fob.ErrAlready)
			require.NotErrorIs(t, r.err, fob.ErrContended)
		}
	}
}

// Replicas that import the same key when they start: one does, the others are told
// that it is done, and the key works.
func TestImportsOfOneKeyInEveryOrder(t *testing.T) {
	for name, spec := range map[string]func(caller int) fob.KeySpec{
		"as the same": func(int) fob.KeySpec { return fob.KeySpec{Subject: fob.App("a"), Name: "seed"} },
		"of others":   func(i int) fob.KeySpec { return fob.KeySpec{Subject: fob.App(fmt.Sprint(i)), Name: fmt.Sprint(i)} },
		"as others":   func(i int) fob.KeySpec { return fob.KeySpec{Subject: fob.App("a"), Name: fmt.Sprint(i)} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := fob.Config{Imported: located()}
			interleaving{config: cfg, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
				return func(ctx context.Context, m *fob.Manager, i int) (any, error) {
						return m.ImportKey(ctx, spec(i), fob.ImportedKey{Secret: importedText})
					}, func(t *testing.T, results []result) {
						won := winners(results)
						require.Len(t, won, 1, "%v", results)
						mustBeTold(t, results)
						m := after(t, store, cfg)
						defer m.Close()
						got := mustVerify(t, m, importedText).(*fob.Key)
						require.Equal(t, results[won[0]].value.(*fob.Key).ID(), got.ID())
						require.Equal(t, spec(won[0]).Name, got.Name())
					}
			}}.walks(t)
		})
	}
}

// Of rotations at once one hands out the secret that works, the others are told that
// it has been rotated.
func TestRotationsOfOneKeyInEveryOrder(t *testing.T) {
	for name, rotation := range map[string]fob.Rotation{
		"at once": {}, "with a quiet time": {Overlap: time.Hour, QuietTime: 20000 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			interleaving{prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
				first := after(t, store, fob.Config{})
				defer first.Close()
				_, key := mustIssue(t, first, fob.KeySpec{})
				return func(ctx context.Context, m *fob.Manager, _ int) (any, error) {
						secret, _, err := m.RotateKey(ctx, key.ID(), rotation)
						return secret, err
					}, func(t *testing.T, results []result) {
						won := winners(results)
						require.Len(t, won, 1, "%v", results)
						mustBeTold(t, results)
						m := after(t, store, fob.Config{})
						defer m.Close()
						mustVerify(t, m, results[won[0]].value.(fob.Secret).Reveal())
					}
			}}.walks(t)
		})
	}
}

// An idempotent issue is one issue, however many make it.
func TestIdempotentIssuesInEveryOrder(t *testing.T) {
	interleaving{short: true, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		return func(ctx context.Context, m *fob.Manager, _ int) (any, error) {
				secret, _, err := m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID})
				return secret, err
			}, func(t *testing.T, results []result) {
				m := after(t, store, fob.Config{})
				defer m.Close()
				for _, r := range results {
					require.NoError(t, r.err)
					require.Equal(t, results[0].value.(fob.Secret).Reveal(), r.value.(fob.Secret).Reveal())
				}
				mustVerify(t, m, results[0].value.(fob.Secret).Reveal())
			}
	}}.walks(t)
}

// Whoever revokes a session is told that it is done; not everybody that it was done
// before.
func TestRevocationsOfOneFamilyInEveryOrder(t *testing.T) {
	cfg := tokenConfig()
	interleaving{config: cfg, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		first := after(t, store, cfg)
		defer first.Close()
		issued := mustToken(t, first, fob.TokenSpec{Refreshable: true})
		return func(ctx context.Context, m *fob.Manager, _ int) (any, error) {
				return m.Revoke(ctx, issued.Token.Session(), "")
			}, func(t *testing.T, results []result) {
				already := 0
				for _, r := range results {
					require.NoError(t, r.err)
					if r.value.(fob.Receipt).Already {
						already++
					}
				}
				require.Less(t, already, len(results))
				m := after(t, store, cfg)
				defer m.Close()
				mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
				_, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
				require.ErrorIs(t, err, fob.ErrRevoked)
			}
	}}.walks(t)
}

func TestRevocationsOfBothSubjectsInEveryOrder(t *testing.T) {
	interleaving{short: true, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		first := after(t, store, fob.Config{})
		defer first.Close()
		app, _ := mustIssue(t, first, fob.KeySpec{Subject: fob.App("a")})
		user, _ := mustIssue(t, first, fob.KeySpec{Subject: fob.User("a")})
		return func(ctx context.Context, m *fob.Manager, _ int) (any, error) {
				if receipt, err := m.Revoke(ctx, fob.App("a"), ""); err != nil {
					return receipt, err
				}
				return m.Revoke(ctx, fob.User("a"), "")
			}, func(t *testing.T, results []result) {
				for _, r := range results {
					require.NoError(t, r.err)
				}
				m := after(t, store, fob.Config{})
				defer m.Close()
				mustReject(t, m, app, fob.ErrRevoked)
				mustReject(t, m, user, fob.ErrRevoked)
			}
	}}.walks(t)
}

// The first key of the ring is drawn by one, and a rotation called by many is one.
func TestTokenKeysAreMadeOnceInEveryOrder(t *testing.T) {
	cfg := tokenConfig()
	interleaving{short: true, config: cfg, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		return func(ctx context.Context, m *fob.Manager, _ int) (any, error) {
				return m.RotateTokenKey(ctx)
			}, func(t *testing.T, results []result) {
				for _, r := range results {
					require.NoError(t, r.err)
					require.Equal(t, results[0].value.(fob.TokenKey).ID, r.value.(fob.TokenKey).ID)
				}
				m := after(t, store, cfg)
				defer m.Close()
				keys, err := m.TokenKeys(t.Context())
				require.NoError(t, err)
				require.Len(t, keys, 2)
			}
	}}.walks(t)
}

// Each lowers the bound as far as it may; nobody is told that somebody came between.
func TestTheFleetsBoundIsLoweredInEveryOrder(t *testing.T) {
	interleaving{short: true, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		patient := after(t, store, fob.Config{MaxStaleness: time.Minute})
		synctest.Wait()
		require.NoError(t, patient.Close())
		return func(ctx context.Context, m *fob.Manager, i int) (any, error) {
				return nil, m.LowerFleetStaleness(ctx, time.Duration(10+i)*time.Second)
			}, func(t *testing.T, results []result) {
				for _, r := range results {
					require.NoError(t, r.err)
				}
				m := after(t, store, fob.Config{})
				defer m.Close()
				bound, err := m.FleetStaleness(t.Context())
				require.NoError(t, err)
				require.Equal(t, 10*time.Second, bound)
			}
	}}.walks(t)
}
