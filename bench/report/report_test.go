package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"
)

func sample(t *testing.T) *figures {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "bench.txt"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	fs, err := parse(f)
	require.NoError(t, err)
	return fs
}

func parsed(t *testing.T, text string) *figures {
	t.Helper()
	fs, err := parse(strings.NewReader(text))
	require.NoError(t, err)
	return fs
}

const small = `goos: linux
cpu: Some CPU
command: go test -bench x
BenchmarkFloor/sha256_block_and_map-2 	100	100.0 ns/op	0 B/op	0 allocs/op
BenchmarkFloor/sha256_block_and_map-2 	100	300.0 ns/op	0 B/op	0 allocs/op
BenchmarkFloor/sha256_block_and_map-2 	100	110.0 ns/op	0 B/op	0 allocs/op
BenchmarkVerifyCached/uniform-2 	100	165.0 ns/op	0 B/op	0 allocs/op
BenchmarkScaling/key/uniform 	100	400.0 ns/op
BenchmarkScaling/key/uniform-2 	100	200.0 ns/op
BenchmarkCachedKey/uniform/fob-2 	100	200.0 ns/op
BenchmarkCachedKey/uniform/kubernetes-2 	100	1000.0 ns/op
BenchmarkIssueDurable/writers=64-2 	100	1000 ns/op	12.5 keys/commit
`

func TestMediansAndRatios(t *testing.T) {
	fs := parsed(t, small)
	floor := fs.find("Floor/sha256_block_and_map")
	require.InDelta(t, 110, floor.ns(), 1e-9, "the median, not the mean")
	require.InDelta(t, 100, floor.least, 1e-9)
	require.InDelta(t, 300, floor.most, 1e-9)
	require.Equal(t, "linux", fs.config["goos"])
	require.Equal(t, []string{"go test -bench x"}, fs.commands)
	rows := map[string][]string{}
	for _, row := range fs.table().rows {
		rows[row[0]+" "+row[1]] = row
	}
	require.Equal(t, []string{"1.50", "Floor/sha256_block_and_map"}, rows["VerifyCached/uniform 2"][4:6])
	require.Equal(t, "2.00 × the rate", rows["Scaling/key/uniform 2"][4])
	require.Equal(t, []string{"5.00", "fob"}, rows["CachedKey/uniform/kubernetes 2"][4:6])
	require.Equal(t, "12.5 keys/commit", rows["IssueDurable/writers=64 2"][7])
	require.Empty(t, rows["Floor/sha256_block_and_map 2"][4])
}

func TestWhatIsNoOutput(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"other":       "PASS\nok  	example.com	1.2s\n",
		"cut":         "BenchmarkX-2 	100	12.5\n",
		"no number":   "BenchmarkX-2 	100	fast ns/op\n",
		"no count":    "BenchmarkX-2 	many	1 ns/op\n",
		"nothing yet": "BenchmarkX-2\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(strings.NewReader(text))
			require.Error(t, err)
		})
	}
}

func TestTheWholeReport(t *testing.T) {
	dir := t.TempDir()
	page, images := filepath.Join(dir, "docs", "benchmarks.md"), filepath.Join(dir, "docs", "images")
	require.NoError(t, os.MkdirAll(filepath.Dir(page), 0o755))
	require.NoError(t, os.WriteFile(page, []byte("# Before\n\n"+markBegin+"\nwhat was here\n"+markEnd+"\n\nAfter.\n"), 0o600))
	var table bytes.Buffer
	o := options{from: filepath.Join("testdata", "bench.txt"), out: dir, count: 1, docs: page, images: images}
	require.NoError(t, report(context.Background(), o, &table, io.Discard))
	require.Contains(t, table.String(), "VerifyCached/uniform")

	for _, name := range []string{"latency", "scaling", "peers", "durable"} {
		f, err := os.Open(filepath.Join(dir, name+".png"))
		require.NoError(t, err)
		img, err := png.Decode(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Greater(t, img.Bounds().Dx(), 1000)
		first, colours := img.At(0, 0), map[any]bool{}
		for x := range img.Bounds().Dx() {
			colours[img.At(x, img.Bounds().Dy()/2)] = true
		}
		require.Greater(t, len(colours), 1, "%s is not blank", name)
		require.NotNil(t, first)
		svg, err := os.ReadFile(filepath.Join(images, name+".svg"))
		require.NoError(t, err)
		mustBeXML(t, svg)
	}

	text, err := os.ReadFile(filepath.Join(dir, "index.html"))
	require.NoError(t, err)
	_, err = html.Parse(bytes.NewReader(text))
	require.NoError(t, err)
	without := strings.NewReplacer(`xmlns="http://www.w3.org/2000/svg"`, "", `xmlns:xlink="http://www.w3.org/1999/xlink"`, "").Replace(string(text))
	require.NotContains(t, without, "http://")
	require.NotContains(t, without, "https://")
	require.NotContains(t, without, "<script")
	require.Equal(t, 4, strings.Count(without, "<svg"))

	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(doc), "# Before\n\n"+markBegin))
	require.True(t, strings.HasSuffix(string(doc), markEnd+"\n\nAfter.\n"))
	require.NotContains(t, string(doc), "what was here")
	require.Contains(t, string(doc), "](images/latency.svg)")
}

func mustBeXML(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
	}
}

func TestAPageWithoutMarksIsLeftAlone(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("mine"), 0o600))
	fs := sample(t)
	require.ErrorIs(t, refresh(page, "", fs, fs.table(), nil), errMarks)
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
}

func TestChartsNeedTheirFigures(t *testing.T) {
	charts, err := parsed(t, "BenchmarkOther-2 	1	1 ns/op\n").charts()
	require.NoError(t, err)
	require.Empty(t, charts)
}

func TestSets(t *testing.T) {
	_, err := chosen("keys,nonsense")
	require.ErrorContains(t, err, "nonsense")
	all, err := chosen("keys, scaling")
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "1,2,4,8,16", processors(64))
	require.Equal(t, "1,2", processors(2))
	require.Contains(t, strings.Join(all[1].args(options{count: 3, benchtime: "1ms", cpu: "1,2"}), " "), "-cpu 1,2 ./bench")
}

func TestABenchmarkThatFailsIsShown(t *testing.T) {
	var out bytes.Buffer
	err := run(context.Background(), []string{"test", "-run", "^$", "-bench", ".", "./no-such-folder"}, &out, func(int, string) {})
	require.ErrorContains(t, err, "no-such-folder")
}

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
