package main

import (
	"bytes"
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

const width = vg.Length(640)

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// rendered draws a plot twice.
func rendered(p *plot.Plot, name, title, words string, height vg.Length) (*chart, error) {
	style(p)
	c := &chart{name: name, title: title, text: words}
	var out bytes.Buffer
	asSVG := &outlined{Canvas: vgsvg.New(width, height)}
	onto(p, draw.New(asSVG))
	if asSVG.err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, asSVG.err)
	}
	if _, err := asSVG.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	c.svg = bytes.Clone(out.Bytes())
	out.Reset()
	asPNG := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(144))}
	onto(p, draw.New(asPNG))
	if _, err := asPNG.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	c.png = bytes.Clone(out.Bytes())
	return c, nil
}

// onto draws with a margin, on white.
func onto(p *plot.Plot, c draw.Canvas) {
	c.FillPolygon(color.White, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
	p.Draw(draw.Crop(c, vg.Points(14), -vg.Points(14), vg.Points(10), -vg.Points(10)))
}

// style gives every chart the same letters and quiet lines.
func style(p *plot.Plot) {
	set := func(s *text.Style, size font.Length) {
		s.Font = sans
		s.Font.Size = size
	}
	set(&p.Title.TextStyle, 13)
	p.Title.Padding = vg.Points(10)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		set(&axis.Label.TextStyle, 11)
		set(&axis.Tick.Label, 10)
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = muted, muted
		axis.Padding = 0
	}
	set(&p.Legend.TextStyle, 10)
	p.Legend.Padding = vg.Points(2)
	p.BackgroundColor = color.White
}

// gridLines are pale lines at the ticks of the X axis.
type gridLines struct{ at []plot.Tick }

// Plot implements plot.Plotter.
func (g gridLines) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, t := range g.at {
		c.StrokeLine2(draw.LineStyle{Color: palest, Width: vg.Points(0.7)}, x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
	}
}
