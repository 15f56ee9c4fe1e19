package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const grown = `goos: linux
BenchmarkGrowth/hit/keys=1000-2 	1	1 ns/op	1.5 ×-floor
BenchmarkGrowth/hit/keys=1000000-2 	1	1 ns/op	3 ×-floor
BenchmarkGrowth/hit/keys=10000-2 	1	1 ns/op	1.6 ×-floor
BenchmarkBeforeGrowth/sweep/rotations=10-2 	1	1 ns/op	4.2 calls/rotation
BenchmarkBeforeGrowth/sweep/rotations=100-2 	1	1 ns/op	4.02 calls/rotation
BenchmarkGrowth/sweep/rotations=10-2 	1	1 ns/op	0.5 calls/rotation
BenchmarkGrowth/sweep/rotations=100-2 	1	1 ns/op	0.05 calls/rotation
BenchmarkGrowth/changes/cached=1000-2 	1	1 ns/op	0 %-read-again
`

func TestWhatGrowsIsDrawnFromLeftToRight(t *testing.T) {
	charts, err := parsed(t, grown).charts()
	require.NoError(t, err)
	require.Len(t, charts, 2, "one point is no slope")
	require.Equal(t, "growth-hit", charts[0].name)
	require.Equal(t, "Verify, in random order, 1,000 keys in memory: 1.5 times hash and map; Verify, in random order, 10,000 keys in memory: 1.6 times hash and map; "+
		"Verify, in random order, 1,000,000 keys in memory: 3 times hash and map", charts[0].text)
	require.Equal(t, "growth-sweep", charts[1].name)
	require.Contains(t, charts[1].text, "before, 100 rotations: 4.02 calls; now, 10 rotations: 0.5 calls")
	for _, c := range charts {
		mustBeXML(t, c.svg)
		require.NotEmpty(t, c.png)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[float64]string{1: "1", 999: "999", 1000: "1,000", 123_456: "123,456", 10_000_000: "10,000,000"} {
		require.Equal(t, want, thousands(n))
	}
}
