package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// box is what a path covers, by the points that it is made of: those of a curve lie
// around it, so it is never less.
type box struct{ left, right, low, high float64 }

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.low < o.high && o.low < b.high
}

func (b box) within(o box) bool {
	return b.left >= o.left && b.right <= o.right && b.low >= o.low && b.high <= o.high
}

var number = regexp.MustCompile(`-?[0-9.]+(e-?[0-9]+)?`)

// painted returns the boxes of what an SVG fills, by the colour.
func painted(t *testing.T, svg []byte) map[string][]box {
	t.Helper()
	all := map[string][]box{}
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		token, err := d.Token()
		if token == nil {
			return all
		}
		require.NoError(t, err)
		path, ok := token.(xml.StartElement)
		if !ok || path.Name.Local != "path" {
			continue
		}
		var data, style string
		for _, a := range path.Attr {
			switch a.Name.Local {
			case "d":
				data = a.Value
			case "style":
				style = a.Value
			}
		}
		if strings.Contains(style, "stroke") {
			continue
		}
		b := box{1e9, -1e9, 1e9, -1e9}
		for i, text := range number.FindAllString(data, -1) {
			v, err := strconv.ParseFloat(text, 64)
			require.NoError(t, err)
			if i%2 == 0 {
				b.left, b.right = min(b.left, v), max(b.right, v)
			} else {
				b.low, b.high = min(b.low, v), max(b.high, v)
			}
		}
		colour := "#000000"
		if _, rest, ok := strings.Cut(style, "fill:"); ok {
			colour = rest[:7]
		}
		all[colour] = append(all[colour], b)
	}
}

// published are the charts that the documents show.
func published(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "..", "docs", "images", "*.svg"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	all := map[string][]byte{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		all[strings.TrimSuffix(filepath.Base(name), ".svg")] = text
	}
	return all
}

// A reader's font may be wider than the one for which a chart leaves room: then labels
// ran under the bars. What is drawn as outlines looks alike everywhere.
func TestNoChartDependsOnAFont(t *testing.T) {
	charts, err := sample(t).charts()
	require.NoError(t, err)
	all := published(t)
	for _, c := range charts {
		all["sample "+c.name] = c.svg
	}
	for name, svg := range all {
		require.NotContains(t, string(svg), "<text", name)
		require.NotContains(t, string(svg), "font", name)
	}
}

func TestNoTextMeetsABar(t *testing.T) {
	charts, err := sample(t).charts()
	require.NoError(t, err)
	all := published(t)
	for _, c := range charts {
		all["sample "+c.name] = c.svg
	}
	long, err := barChart("long", "Long names", []bar{
		{"a name that is much longer than the others, WWWWW", 1, true}, {"short", 1000, false}, {"ÄÖÜß µ", 31, false},
	})
	require.NoError(t, err)
	all["long names"] = long.svg
	looked := 0
	for name, svg := range all {
		if !strings.Contains(name, "peers") && !strings.Contains(name, "latency") && name != "long names" {
			continue // those without bars
		}
		looked++
		found := painted(t, svg)
		page := found["#FFFFFF"][0]
		words, bars := found["#000000"], append(found["#1F6FB2"], found["#9AA5B1"]...)
		require.Greater(t, len(words), 2*len(bars), "%s: a label and a time for each bar, a title", name)
		require.NotEmpty(t, bars, name)
		for i, w := range words {
			require.True(t, w.within(page), "%s: text %d is cut off", name, i)
			for _, b := range bars {
				require.False(t, w.meets(b), "%s: text %d meets a bar", name, i)
			}
			for _, other := range words[:i] {
				require.False(t, w.meets(other), "%s: text %d meets another", name, i)
			}
		}
	}
	require.Equal(t, 5, looked)
}

// The data that the published charts were drawn from are kept beside them.
func TestPublishedChartsAreThoseOfTheirData(t *testing.T) {
	all, drawnFrom := published(t), 0
	for _, data := range []string{"bench.txt", "growth.txt"} {
		f, err := os.Open(filepath.Join("..", "..", "docs", "images", data))
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		fs, err := parse(f)
		require.NoError(t, err)
		charts, err := fs.charts()
		require.NoError(t, err)
		drawnFrom += len(charts)
		for _, c := range charts {
			requireSame(t, c, all[c.name], "go run ./bench/report -from docs/images/"+data+" -images docs/images")
		}
	}
	require.Len(t, all, drawnFrom)
}

func requireSame(t *testing.T, c *chart, published []byte, mend string) {
	t.Helper()
	drawn, kept := painted(t, c.svg), painted(t, published)
	require.Len(t, kept, len(drawn), c.name)
	for colour, boxes := range drawn {
		require.Len(t, kept[colour], len(boxes), "%s: %s", c.name, colour)
		for i, b := range boxes {
			k := kept[colour][i]
			// Other processors round otherwise.
			require.InDeltaSlice(t, []float64{b.left, b.right, b.low, b.high}, []float64{k.left, k.right, k.low, k.high}, 0.5,
				"%s is not what its data draw: %s", c.name, mend)
		}
	}
}

func TestALetterThatTheFontLacks(t *testing.T) {
	_, err := barChart("x", "x", []bar{{"中", 1, true}, {"b", 2, false}})
	require.ErrorContains(t, err, "font")
}
