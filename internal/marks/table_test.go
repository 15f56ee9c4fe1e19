package marks_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

func numbered(n uint64) (id record.ID) {
	id[0] = byte(record.Mark)
	binary.LittleEndian.PutUint64(id[1:], n*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint32(id[9:], uint32(n))
	return id
}

func TestATableIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var have marks.Table
	want := map[record.ID]uint64{}
	for step := range 400_000 {
		id := numbered(r.Uint64N(5000))
		if step > 200_000 && step < 300_000 {
			id = numbered(r.Uint64N(300)) // most of it goes
		}
		switch r.IntN(4) {
		case 0:
			have.Drop(id)
			delete(want, id)
		case 1:
			if step%1000 == 1 {
				at, limit := 0, r.Uint64N(1000)
				for {
					if at = have.DropIf(at, 7, func(_ byte, v uint64) bool { return v < limit }); at == 0 {
						break
					}
				}
				for id, v := range want {
					if v < limit {
						delete(want, id)
					}
				}
			}
		default:
			v := r.Uint64N(1000)
			have.Put(id, v)
			want[id] = v
		}
		id = numbered(r.Uint64N(5000))
		got, ok := have.Get(id)
		wanted, there := want[id]
		if got != wanted || ok != there || have.Len() != len(want) {
			t.Fatalf("step %d: %d %v, want %d %v", step, got, ok, wanted, there)
		}
	}
	for id, wanted := range want {
		got, ok := have.Get(id)
		require.True(t, ok)
		require.Equal(t, wanted, got)
	}
}

// TestAMarkTakesFewBytes, at whatever size of the table.
func TestAMarkTakesFewBytes(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var all marks.Table
	before := heap()
	next := 50_000
	for i := range 600_000 {
		all.Put(numbered(uint64(i)), uint64(i))
		if i+1 == next {
			taken := float64(heap()-before) / float64(next)
			t.Logf("%d marks: %.1f bytes each", next, taken)
			require.Less(t, taken, 24.0)
			next = next * 5 / 4
		}
	}
	runtime.KeepAlive(&all)
}

func BenchmarkTable(b *testing.B) {
	const n = 1_000_000
	var all marks.Table
	plain := map[record.ID]uint64{}
	for i := range n {
		all.Put(numbered(uint64(i)), uint64(i))
		plain[numbered(uint64(i))] = uint64(i)
	}
	for _, c := range []struct {
		name string
		of   uint64
		get  func(record.ID) bool
	}{
		{"marked", 0, func(id record.ID) bool { _, ok := all.Get(id); return ok }},
		{"unmarked", n, func(id record.ID) bool { _, ok := all.Get(id); return !ok }},
		{"map/marked", 0, func(id record.ID) bool { _, ok := plain[id]; return ok }},
		{"map/unmarked", n, func(id record.ID) bool { _, ok := plain[id]; return !ok }},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			for b.Loop() {
				if !c.get(numbered(c.of + r.Uint64N(n))) {
					b.Fatal("wrong")
				}
			}
		})
	}
}
