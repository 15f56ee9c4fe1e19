package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// slope is one line of a chart of growth: a measurement of the benchmarks that differ in a
// number at the end of their names.
type slope struct {
	label, prefix, unit string
}

// growth is one chart of what grows with something.
type growth struct {
	name, title, x, y string
	slopes            []slope
}

// growths are the charts of docs/scaling.md. What a benchmark measured before it was mended
// is recorded under a name that begins with Before.
var growths = []growth{
	{"growth-hit", "A key from memory, by how many are there", "keys in memory", "times hash and map", []slope{
		{"Verify, in random order", "Growth/hit/keys=", "×-floor"},
	}},
	{"growth-changes", "Answers read again for 10,000 changes of other records", "answers in memory", "%", []slope{
		{"keys issued elsewhere, before", "BeforeGrowth/changes/cached=", "%-read-again"},
		{"keys issued elsewhere", "Growth/changes/cached=", "%-read-again"},
		{"tokens revoked elsewhere", "Growth/revocations/cached=", "%-read-again"},
	}},
	{"growth-sweep", "Calls of the store in one sweep, for each rotation", "rotations", "calls", []slope{
		{"before", "BeforeGrowth/sweep/rotations=", "calls/rotation"},
		{"now", "Growth/sweep/rotations=", "calls/rotation"},
	}},
	{"crowd-idle", "What one idle process asks PostgreSQL, by how many there are", "processes", "transactions a second", []slope{
		{"before", "BeforeCrowd/postgres/processes=", "idle-transactions/s/process"},
		{"now", "Crowd/postgres/processes=", "idle-transactions/s/process"},
	}},
	{"crowd-late", "How late a process refuses, all on two processors", "processes", "ms", []slope{
		{"memory, median", "Crowd/memory/processes=", "p50-ms"},
		{"memory, 99 of 100", "Crowd/memory/processes=", "p99-ms"},
		{"PostgreSQL, median", "Crowd/postgres/processes=", "p50-ms"},
		{"PostgreSQL, 99 of 100", "Crowd/postgres/processes=", "p99-ms"},
	}},
}

// grown draws the charts of growth for which there are figures.
func (fs *figures) grown() ([]*chart, error) {
	var out []*chart
	for _, g := range growths {
		c, err := fs.draw(g)
		if err != nil {
			return nil, err
		}
		if c != nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// points are what one slope goes through, from left to right.
func (fs *figures) points(s slope) (points plotter.XYs) {
	for _, f := range fs.all {
		rest, ok := strings.CutPrefix(f.name, s.prefix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(rest, 64)
		if value, measured := f.values[s.unit]; err == nil && n > 0 && measured {
			points = append(points, plotter.XY{X: n, Y: value})
		}
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return int(a.X - b.X) })
	return points
}

// draw draws the slopes of a chart that have two points at least, over a logarithmic axis;
// nil if there are none.
func (fs *figures) draw(g growth) (*chart, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = g.title, g.x, g.y
	p.X.Scale = plot.LogScale{}
	var text []string
	at := make(map[float64]bool)
	for i, s := range g.slopes {
		points := fs.points(s)
		if len(points) < 2 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color = series[i%len(series)], series[i%len(series)]
		p.Add(line, dots)
		p.Legend.Add(s.label, line)
		for _, point := range points {
			at[point.X] = true
			text = append(text, fmt.Sprintf("%s, %s %s: %.4g %s", s.label, thousands(point.X), g.x, point.Y, g.y))
		}
	}
	if len(text) == 0 {
		return nil, nil
	}
	var ticks []plot.Tick
	for x := range at {
		ticks = append(ticks, plot.Tick{Value: x, Label: thousands(x)})
	}
	slices.SortFunc(ticks, func(a, b plot.Tick) int { return int(a.Value - b.Value) })
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Y.Tick.Marker = plot.TickerFunc(plainTicks)
	p.Add(gridLines{ticks})
	p.Legend.Left, p.Legend.Top = true, true
	p.Y.Min = 0
	p.Y.Max = max(p.Y.Max, math.SmallestNonzeroFloat32) * 1.4 // the legend is above the lines
	return rendered(p, g.name, g.title, strings.Join(text, "; "), 300)
}

// plainTicks are the ticks that an axis has by default, with numbers that end in no zeros.
func plainTicks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'g', 4, 64)
		}
	}
	return ticks
}

// thousands writes a whole number with a comma between every three digits.
func thousands(n float64) string {
	text := strconv.FormatFloat(n, 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
