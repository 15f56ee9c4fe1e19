package cache_test

import (
	"math/rand/v2"
	"testing"

	"github.com/fobkit/fob/cache"
	"github.com/stretchr/testify/require"
)

// A storm of changes that concern nothing in the Cache leaves it as it is: of entries with
// five Refs, 10,000 changes of other names end four in a thousand at most. With one number
// for each of 65,536 stripes, which take as much memory, it was every second one.
func TestChangesOfOthersEndNothing(t *testing.T) {
	const entries, refs, storm = 10_000, 5, 10_000
	c := newCache[int](t, 0) // as many as it holds by default
	name := 0
	for i := range entries {
		var of []cache.Ref
		for range refs {
			of = append(of, ref(name))
			name++
		}
		mustPut(t, c, key(i), i, c.Begin(), always, of...)
	}
	for range storm {
		c.Invalidate(ref(name))
		name++
	}
	lost := 0
	for i := range entries {
		if _, ok := c.Get(key(i), 0); !ok {
			lost++
		}
	}
	t.Logf("%d of %d entries are lost", lost, entries)
	// Seventeen are expected, because two names look alike or a line is full, give or take four.
	require.LessOrEqual(t, lost, entries/250)
}

// However long a storm lasts, an entry that is used meanwhile ends for none of the others: it
// was found good not long ago. One that is not used ends when the names since its ticket are
// more than are remembered.
func TestALongStormEndsNothingThatIsUsed(t *testing.T) {
	c := newCache[int](t, 1000)
	const entries = 100
	for i := range 2 * entries {
		mustPut(t, c, key(i), i, c.Begin(), always, ref(i), ref(1000+i))
	}
	for i := range 20 * c.Lines() * cache.LineNames {
		c.Invalidate(ref(10_000 + i))
		if i%(c.Lines()/2) == 0 {
			for used := range entries {
				c.Get(key(used), 0)
			}
		}
	}
	left := [2]int{}
	for i := range 2 * entries {
		if _, ok := c.Get(key(i), 0); ok {
			left[i/entries]++
		}
	}
	require.GreaterOrEqual(t, left[0], entries/2, "one in ten is expected to end, because two names look alike")
	require.Zero(t, left[1])
	c.Invalidate(ref(0))
	_, ok := c.Get(key(0), 0)
	require.False(t, ok)
}

// A Cache remembers 14,336 names however few entries it may hold: half as many changes of
// others end few of these.
func TestASmallCacheRemembersAsManyNames(t *testing.T) {
	c := newCache[int](t, 1000)
	for i := range 1000 {
		mustPut(t, c, key(i), i, c.Begin(), always, ref(i))
	}
	for i := range c.Lines() * cache.LineNames / 2 {
		c.Invalidate(ref(1000 + i))
	}
	left := 0
	for i := range 1000 {
		if _, ok := c.Get(key(i), 0); ok {
			left++
		}
	}
	require.Greater(t, left, 900)
}

// The same change again and again takes the place of one.
func TestANameIsRememberedOnce(t *testing.T) {
	c := newCache[int](t, 10)
	c.OneLine()
	other := unlike(c, 2)
	mustPut(t, c, key(1), 1, c.Begin(), always, other[0])
	for range 10 * cache.LineNames {
		c.Invalidate(other[1])
	}
	_, ok := c.Get(key(1), 0)
	require.True(t, ok)
}

// unlike returns Refs of which none is taken for another.
func unlike[V any](c *cache.Cache[V], n int) []cache.Ref {
	var out []cache.Ref
	for i := 0; len(out) < n; i++ {
		alike := false
		for _, r := range out {
			alike = alike || c.Alike(r, ref(i))
		}
		if !alike {
			out = append(out, ref(i))
		}
	}
	return out
}

// An entry ends when its own name is invalidated, or when more others were than its line
// holds, whichever comes first, and at no other time.
func TestWhenAnEntryEnds(t *testing.T) {
	for others := range 2*cache.LineNames + 1 {
		for _, own := range []int{-1, 0, others / 2, others} { // after how many others; -1: never
			c := newCache[int](t, 10)
			c.OneLine()
			names := unlike(c, 1+3*cache.LineNames)
			for _, r := range names[1+2*cache.LineNames:] {
				c.Invalidate(r) // before the ticket: these count for nothing
			}
			mustPut(t, c, key(1), 1, c.Begin(), always, names[0])
			for i := range others + 1 {
				if i == own {
					c.Invalidate(names[0])
				}
				if i < others {
					c.Invalidate(names[1+i])
				}
			}
			_, ok := c.Get(key(1), 0)
			require.Equal(t, own < 0 && others <= cache.LineNames, ok, "%d others, its own after %d", others, own)
		}
	}
}

// Against a model that knows everything: what is served is never older than a change of one
// of its names, and what is not served has a reason.
func TestNamesAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	type state struct {
		value, ticket int
		refs          []int
	}
	for _, names := range []int{3, cache.LineNames, cache.LineNames + 1, 40} {
		c := newCache[int](t, 500)
		c.OneLine()
		refs := unlike(c, names)
		changed := make([]int, names) // when
		model := map[int]state{}
		type load struct {
			ticket cache.Ticket
			state
		}
		var loads []load
		for now := 1; now < 50_000; now++ {
			k := rng.IntN(20)
			switch rng.IntN(8) {
			case 0:
				var batch []cache.Ref
				for range 1 + rng.IntN(3) {
					n := rng.IntN(names)
					changed[n], batch = now, append(batch, refs[n])
				}
				c.Invalidate(batch...)
			case 1, 2: // a load begins
				loads = append(loads, load{c.Begin(), state{now, now, []int{rng.IntN(names), rng.IntN(names)}}})
			case 3, 4: // and ends, or another one
				if len(loads) == 0 {
					continue
				}
				n := rng.IntN(len(loads))
				l := loads[n]
				loads = append(loads[:n], loads[n+1:]...)
				_, ok := c.Put(key(k), l.value, l.ticket, always, refs[l.refs[0]], refs[l.refs[1]])
				if ok {
					model[k] = l.state
				}
			default:
				v, ok := c.Get(key(k), 0)
				s, held := model[k]
				if !held {
					require.False(t, ok)
					continue
				}
				ended, since := false, 0
				for n, at := range changed {
					if at > s.ticket {
						since++
						ended = ended || n == s.refs[0] || n == s.refs[1]
					}
				}
				switch {
				case ok && (ended || *v != s.value):
					t.Fatalf("%d: entry %d is served after a change: %+v", now, k, s)
				case !ok && !ended && since <= cache.LineNames:
					t.Fatalf("%d: entry %d is not served, and nothing changed: %+v", now, k, s)
				}
			}
		}
	}
}

// Whoever comes between any two steps finds what was invalidated before, in the names or in
// the floor. With the steps in the other order he does not.
func TestAmidTheStepsNothingIsLost(t *testing.T) {
	for name, spoil := range map[string]func(c *cache.Cache[int]){
		"":          func(*cache.Cache[int]) {},
		"overwrite": func(c *cache.Cache[int]) { c.BreakOverwriteOrder() },
		"floor":     func(c *cache.Cache[int]) { c.BreakFloorOrder() },
	} {
		c := newCache[int](t, 10)
		c.OneLine()
		names := unlike(c, 1+cache.LineNames)
		mustPut(t, c, key(1), 1, c.Begin(), always, names[0])
		for _, r := range names[:cache.LineNames] {
			c.Invalidate(r) // the first one's is the oldest then
		}
		spoil(c)
		served, depth := false, 0
		amid := func(do func()) func() {
			return func() {
				if depth++; depth == 1 { // nobody comes between the steps of who comes between
					do()
				}
				depth--
			}
		}
		get := func() {
			_, ok := c.Get(key(1), 0)
			served = served || ok
		}
		if name == "floor" {
			c.Amid(amid(func() { c.Invalidate(names[cache.LineNames]) }))
			get()
		} else {
			c.Amid(amid(get))
			c.Invalidate(names[cache.LineNames])
		}
		require.Equal(t, name != "", served, name)
	}
}

func TestNamesFallOnAllLines(t *testing.T) {
	c := newCache[int](t, 10)
	mustPut(t, c, key(1), 1, c.Begin(), always)
	used := map[int]bool{}
	for i := range 80_000 { // a line is missed once in 10^13 times
		used[c.Line(ref(i))] = true
		c.Invalidate(ref(i))
	}
	_, ok := c.Get(key(1), 0)
	require.True(t, ok, "what was made from nothing ends by Clear alone")
	require.Len(t, used, c.Lines())
	for line := range used {
		require.True(t, line >= 0 && line < c.Lines())
	}
	c.Clear()
	_, ok = c.Get(key(1), 0)
	require.False(t, ok)
}
