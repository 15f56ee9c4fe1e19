package bench_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// access is in which order credentials are asked for.
type access struct {
	name  string
	order func(n int) []int // of 1<<16 positions below n, to be walked in a circle
}

var accesses = []access{
	{"uniform", func(n int) []int {
		return order(func(r *rand.Rand) int { return r.IntN(n) })
	}},
	// Few keys carry most of the traffic: the first of 10,000 every eighth request.
	{"zipf", func(n int) []int {
		z := rand.NewZipf(rand.New(rand.NewPCG(3, 4)), 1.1, 1, uint64(n-1))
		return order(func(*rand.Rand) int { return int(z.Uint64()) })
	}},
	{"one_hot", func(int) []int { return order(func(*rand.Rand) int { return 0 }) }},
}

func order(next func(*rand.Rand) int) []int {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]int, 1<<16)
	for i := range all {
		all[i] = next(r)
	}
	return all
}

// parallel asks for positions of order from as many goroutines as there are
// processors to run on (-cpu), each from another start; do reports success.
func parallel(b *testing.B, order []int, do func(at int) bool) {
	b.Helper()
	b.ReportAllocs()
	var start atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		for i := int(start.Add(1)) * 7919; pb.Next(); i++ {
			if !do(order[i&(len(order)-1)]) {
				b.Error("not accepted")
				return
			}
		}
	})
}
