package main

import (
	"fmt"

	"golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// outlined is a canvas of SVG that draws letters as outlines. As text they would be
// drawn in whatever font the reader has, whose letters may be wider than those for
// which the chart left room.
type outlined struct {
	*vgsvg.Canvas
	err error // the first glyph that could not be drawn
}

// FillString implements vg.Canvas: one path for all of the text.
func (c *outlined) FillString(face plotfont.Face, at vg.Point, text string) {
	path, err := outline(face, at, text)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("draw %q: %w", text, err)
	}
	if len(path) > 0 {
		c.Fill(path)
	}
}

// outline sets text as plotfont.Face.Width measures it: unhinted, with kerning.
func outline(face plotfont.Face, at vg.Point, text string) (vg.Path, error) {
	var buf sfnt.Buffer
	em := fixed.Int26_6(face.Face.UnitsPerEm())
	unit := face.Font.Size / vg.Length(em) // points in a unit of the font
	var path vg.Path
	pen, before := at.X, sfnt.GlyphIndex(0)
	for i, r := range text {
		glyph, err := face.Face.GlyphIndex(&buf, r)
		if err != nil {
			return nil, err
		}
		if glyph == 0 {
			return nil, fmt.Errorf("the font has no %q", r)
		}
		if i > 0 {
			kern, err := face.Face.Kern(&buf, before, glyph, em, font.HintingNone)
			switch err {
			case nil:
				pen += vg.Length(kern) * unit
			case sfnt.ErrNotFound: // a pair without kerning
			default:
				return nil, err
			}
		}
		segments, err := face.Face.LoadGlyph(&buf, glyph, em, nil)
		if err != nil {
			return nil, err
		}
		// The font's Y axis points down, that of vg up.
		point := func(p fixed.Point26_6) vg.Point {
			return vg.Point{X: pen + vg.Length(p.X)*unit, Y: at.Y - vg.Length(p.Y)*unit}
		}
		for n, s := range segments {
			switch s.Op {
			case sfnt.SegmentOpMoveTo:
				if n > 0 {
					path.Close()
				}
				path.Move(point(s.Args[0]))
			case sfnt.SegmentOpLineTo:
				path.Line(point(s.Args[0]))
			case sfnt.SegmentOpQuadTo:
				path.QuadTo(point(s.Args[0]), point(s.Args[1]))
			case sfnt.SegmentOpCubeTo:
				path.CubeTo(point(s.Args[0]), point(s.Args[1]), point(s.Args[2]))
			}
		}
		if len(segments) > 0 {
			path.Close()
		}
		advance, err := face.Face.GlyphAdvance(&buf, glyph, em, font.HintingNone)
		if err != nil {
			return nil, err
		}
		pen += vg.Length(advance) * unit
		before = glyph
	}
	return path, nil
}
