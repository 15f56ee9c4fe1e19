package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// chart is one picture.
type chart struct {
	name, title, text string // text says what it shows, for who cannot see it
	svg, png          []byte
}

func (c *chart) write(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, c.name+".svg"), c.svg, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, c.name+".png"), c.png, 0o644)
}

var (
	accent = color.RGBA{0x1f, 0x6f, 0xb2, 0xff}
	muted  = color.RGBA{0x9a, 0xa5, 0xb1, 0xff}
	palest = color.RGBA{0xdd, 0xe3, 0xe9, 0xff}
	series = []color.Color{accent, color.RGBA{0xc2, 0x5b, 0x2a, 0xff}, color.RGBA{0x3d, 0x8b, 0x5a, 0xff}, color.RGBA{0x7a, 0x52, 0xa8, 0xff}}
)

// charts draws what there are figures for.
func (fs *figures) charts() ([]*chart, error) {
	var out []*chart
	for _, draw := range []func() (*chart, error){fs.latency, fs.scaling, fs.peers, fs.durable} {
		c, err := draw()
		if err != nil {
			return nil, err
		}
		if c != nil {
			out = append(out, c)
		}
	}
	grown, err := fs.grown()
	return append(out, grown...), err
}

// bar is one horizontal bar.
type bar struct {
	label string
	ns    float64
	ours  bool
}

// latencies are the kinds of verification that the first chart shows.
var latencies = []struct{ name, label string }{
	{"Floor/sha256_block", "SHA-256 of one block"},
	{"Floor/sha256_block_and_map", "the floor: that and a map lookup"},
	{"VerifyMalformed/checksum", "key with a typing error"},
	{"VerifyCached/one_hot_key", "key, cached, one hot key"},
	{"VerifyCached/uniform", "key, cached, 10,000 in turn"},
	{"VerifyUnknown/again", "unknown key, again"},
	{"VerifyUnknown/new_on_memory", "unknown key, memory"},
	{"Token/v4.local/cached", "token v4.local, cached"},
	{"Token/v4.public/cached", "token v4.public, cached"},
	{"VerifyUncachedMemory/one_entry", "key from memory"},
	{"VerifyUncachedBadger/verify/1", "key from Badger"},
	{"Token/v4.local/cold", "token v4.local, opened"},
	{"Token/v4.public/cold", "token v4.public, opened"},
}

func (fs *figures) latency() (*chart, error) {
	var bars []bar
	for _, l := range latencies {
		if f := fs.find(l.name); f != nil {
			bars = append(bars, bar{l.label, f.ns(), !strings.HasPrefix(l.name, "Floor/")})
		}
	}
	if len(bars) < 2 {
		return nil, nil
	}
	return barChart("latency", "Time of one verification", bars)
}

// peers shows the same work through other libraries.
func (fs *figures) peers() (*chart, error) {
	var bars []bar
	for _, s := range []struct{ prefix, label string }{
		{"CachedKey/uniform/", "cached key"}, {"UncachedKey/uniform/", "key looked up"},
		{"Token/cached_signed/", "cached token"}, {"Token/signed/", "signed token"}, {"Token/shared_key/", "shared-key token"}, {"Token/opaque/", "opaque token"},
	} {
		for _, f := range fs.all {
			if rest, ok := strings.CutPrefix(f.name, s.prefix); ok && !strings.Contains(rest, "/") {
				bars = append(bars, bar{s.label + ": " + strings.ReplaceAll(rest, "_", " "), f.ns(), strings.HasPrefix(rest, "fob")})
			}
		}
	}
	if len(bars) < 2 {
		return nil, nil
	}
	return barChart("peers", "The same work through other libraries", bars)
}

// barChart draws horizontal bars on a logarithmic scale, from top to bottom.
func barChart(name, title string, bars []bar) (*chart, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "time of one, logarithmic"
	p.X.Scale = plot.LogScale{}
	least, most := math.Inf(1), 0.0
	for _, b := range bars {
		least, most = min(least, b.ns), max(most, b.ns)
	}
	from, to := math.Pow(10, math.Floor(math.Log10(least*0.7))), most*4
	p.X.Min, p.X.Max = from, to
	p.X.Tick.Marker = plot.ConstantTicks(decades(from, to))
	p.Add(gridLines{decades(from, to)})
	var ticks []plot.Tick
	var text []string
	for i, b := range bars {
		y := float64(len(bars) - 1 - i)
		ticks = append(ticks, plot.Tick{Value: y, Label: b.label})
		fill := color.Color(muted)
		if b.ours {
			fill = accent
		}
		box, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: y - 0.36}, {X: b.ns, Y: y - 0.36}, {X: b.ns, Y: y + 0.36}, {X: from, Y: y + 0.36}})
		if err != nil {
			return nil, err
		}
		box.Color, box.LineStyle.Width = fill, 0
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: b.ns, Y: y}}, Labels: []string{duration(b.ns)}})
		if err != nil {
			return nil, err
		}
		label.Offset.X = vg.Points(4)
		label.TextStyle[0].Font, label.TextStyle[0].YAlign = sans, -0.4
		label.TextStyle[0].Font.Size = 10
		p.Add(box, label)
		text = append(text, b.label+" "+duration(b.ns))
	}
	p.Y.Tick.Marker = plot.ConstantTicks(ticks)
	p.Y.Tick.Length, p.Y.LineStyle.Width = 0, 0
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	return rendered(p, name, title, strings.Join(text, "; "), vg.Length(80+24*len(bars)))
}

// decades are the powers of ten between two times, in readable units.
func decades(from, to float64) []plot.Tick {
	var ticks []plot.Tick
	for v := from; v <= to*1.0001; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: duration(v)})
	}
	return ticks
}

// scaling shows how much more is done by more processors.
func (fs *figures) scaling() (*chart, error) {
	p := plot.New()
	title := "Cached verifications at once, against one processor"
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "processors", "times the rate of one"
	var text []string
	most, highest, drawn := 1, 1.0, 0
	for _, kind := range []string{"floor", "key", "token"} {
		for i, order := range []string{"uniform", "zipf", "one_hot"} {
			one := fs.at("Scaling/"+kind+"/"+order, 1)
			if one == nil {
				continue
			}
			var points plotter.XYs
			for _, f := range fs.all {
				if f.name == one.name {
					points = append(points, plotter.XY{X: float64(f.procs), Y: one.ns() / f.ns()})
					most, highest = max(most, f.procs), max(highest, one.ns()/f.ns())
					text = append(text, fmt.Sprintf("%s %s on %d: %.2f", kind, order, f.procs, one.ns()/f.ns()))
				}
			}
			slices.SortFunc(points, func(a, b plotter.XY) int { return int(a.X - b.X) })
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, err
			}
			line.Color, dots.Color = series[i], series[i]
			switch kind {
			case "floor":
				line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			case "token":
				line.Dashes = []vg.Length{vg.Points(1), vg.Points(2)}
			}
			p.Add(line, dots)
			p.Legend.Add(kind+", "+strings.ReplaceAll(order, "_", " "), line)
			drawn++
		}
	}
	if drawn == 0 || most == 1 {
		return nil, nil
	}
	ideal := plotter.NewFunction(func(x float64) float64 { return x })
	ideal.Color = muted
	p.Add(ideal)
	p.Legend.Add("ideal", ideal)
	p.Legend.Left, p.Legend.Top = true, true
	var ticks []plot.Tick
	for n := 1; n <= most; n *= 2 {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 1, float64(most), 0, max(float64(most), highest)*1.3
	return rendered(p, "scaling", title, strings.Join(text, "; "), 380)
}

// durable shows how concurrent writers share what a synced commit costs.
func (fs *figures) durable() (*chart, error) {
	p := plot.New()
	title := "Durable changes on Badger"
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "goroutines", "changes a second"
	p.X.Scale = plot.LogScale{}
	var text []string
	var ticks []plot.Tick
	drawn := 0
	for i, kind := range []string{"Issue", "Revoke"} {
		var points plotter.XYs
		for _, f := range fs.all {
			rest, ok := strings.CutPrefix(f.name, kind+"Durable/writers=")
			if !ok {
				continue
			}
			n, err := strconv.Atoi(rest)
			if err != nil {
				return nil, err
			}
			points = append(points, plotter.XY{X: float64(n), Y: 1e9 / f.ns()})
			text = append(text, fmt.Sprintf("%s by %d: %.0f a second", strings.ToLower(kind), n, 1e9/f.ns()))
			if !slices.ContainsFunc(ticks, func(t plot.Tick) bool { return t.Value == float64(n) }) {
				ticks = append(ticks, plot.Tick{Value: float64(n), Label: rest})
			}
		}
		if len(points) < 2 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color = series[i], series[i]
		p.Add(line, dots)
		p.Legend.Add(strings.ToLower(kind), line)
		drawn++
	}
	if drawn == 0 {
		return nil, nil
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Legend.Left, p.Legend.Top = true, true
	p.Y.Min = 0
	p.Y.Max *= 1.15
	return rendered(p, "durable", title, strings.Join(text, "; "), 340)
}
