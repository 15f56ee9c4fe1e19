package cache_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/cache"
	lru "github.com/hashicorp/golang-lru/v2"
)

// The same 10,000 entries through this cache and through what else one would
// take, uniformly and with one hot key. Run with -cpu 1,2.
func BenchmarkGet(b *testing.B) {
	const n = 10_000
	keys := make([]cache.Key, n)
	plain := make(map[cache.Key]*int, n)
	var sm sync.Map
	golang, _ := lru.New[cache.Key, *int](n)
	own := newCache[*int](b, 2*n)
	for i := range keys {
		keys[i] = key(i)
		v := new(int)
		plain[keys[i]] = v
		sm.Store(keys[i], v)
		golang.Add(keys[i], v)
		own.Put(keys[i], v, own.Begin(), always, ref(i), ref(1_000_000+i%10))
	}
	gets := []struct {
		name string
		get  func(cache.Key) bool
	}{
		{"map_no_lock", func(k cache.Key) bool { return plain[k] != nil }},
		{"fob", func(k cache.Key) bool { _, ok := own.Get(k, 0); return ok }},
		{"sync.Map", func(k cache.Key) bool { _, ok := sm.Load(k); return ok }},
		{"golang-lru", func(k cache.Key) bool { _, ok := golang.Get(k); return ok }},
	}
	for _, g := range gets {
		for _, access := range []string{"uniform", "hot"} {
			b.Run(g.name+"/"+access, func(b *testing.B) {
				b.ReportAllocs()
				var start atomic.Uint32
				b.RunParallel(func(pb *testing.PB) {
					i := int(start.Add(1)) * 3571
					for pb.Next() {
						k := &keys[0]
						if access == "uniform" {
							i++
							k = &keys[i%n]
						}
						if !g.get(*k) {
							b.Error("miss")
							return
						}
					}
				})
			})
		}
	}
}
