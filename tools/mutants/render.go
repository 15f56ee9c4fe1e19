package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// program is a unit that contains all mutants of its sites at once. An environment variable
// chooses one when a test begins, so the unit is built once and not once for each mutant.
type program struct {
	u     *unit
	sites [][]*site // for each source
	alone []*mutant
	dead  map[int]bool // mutants that do not compile
	texts [][]byte     // the texts of the sources, and then of the switch
}

// span is the part of the output that a variant takes, or a site with all its variants.
type span struct {
	from, to int
	ids      []int
}

// instrument finds the mutants of a unit and writes the program that contains them.
func instrument(u *unit) (*program, error) {
	var plain [][]byte
	for _, s := range u.sources {
		plain = append(plain, s.text)
	}
	p, err := u.check(plain)
	if err != nil {
		return nil, err
	}
	if len(p.wrong) > 0 {
		return nil, fmt.Errorf("%s does not compile: %w", u.path, p.wrong[0])
	}
	next, keys := 1, map[string]int{}
	all := &program{u: u, dead: map[int]bool{}}
	for i, s := range u.sources {
		f := &finder{u: u, p: p, source: i, file: p.files[i], keys: keys, next: &next}
		if s.at {
			f.find()
		}
		slices.SortStableFunc(f.sites, func(a, b *site) int {
			return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to))
		})
		all.sites, all.alone = append(all.sites, f.sites), append(all.alone, f.alone...)
	}
	return all, all.settle(p.types.Name(), next)
}

// settle writes the program again and again, each time without the mutants that did not
// compile, until it compiles.
func (p *program) settle(name string, ids int) error {
	more := fmt.Appendf(nil, switchText, name, ids)
	for {
		var spans [][]span
		p.texts = nil
		for i, s := range p.u.sources {
			w := &writer{text: s.text, dead: p.dead}
			w.part(p.sites[i], 0, len(s.text))
			p.texts, spans = append(p.texts, w.out.Bytes()), append(spans, w.spans)
		}
		p.texts = append(p.texts, more)
		c, err := p.u.check(p.texts)
		if err != nil {
			return err
		}
		if len(c.wrong) == 0 {
			return nil
		}
		for _, e := range c.wrong {
			at := c.fset.Position(e.Pos)
			i := slices.IndexFunc(p.u.sources, func(s *source) bool { return s.name == at.Filename })
			if i < 0 || !p.bury(spans[i], at.Offset) {
				return fmt.Errorf("the mutants of %s cannot be told apart: %w", p.u.path, e)
			}
		}
	}
}

// bury leaves out the variant that was written at an offset, or, if there is none, the
// innermost site with all its variants.
func (p *program) bury(spans []span, at int) bool {
	best := -1
	for i, s := range spans {
		if at < s.from || at >= s.to {
			continue
		}
		if best < 0 || spans[best].to-spans[best].from > s.to-s.from {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	for _, id := range spans[best].ids {
		p.dead[id] = true
	}
	return true
}

// mutants returns the mutants that compile and can be chosen.
func (p *program) mutants() (all []*mutant) {
	for _, sites := range p.sites {
		for _, s := range sites {
			for _, m := range s.variants {
				if !p.dead[m.id] {
					all = append(all, m)
				}
			}
		}
	}
	return all
}

// overlay writes the file that makes the go command read the program instead of the sources.
func (p *program) overlay(dir string) (map[string]string, error) {
	replace := map[string]string{}
	for i, text := range p.texts {
		at := filepath.Join(p.u.dir, "mutant_switch.go")
		if i < len(p.u.sources) {
			at = p.u.sources[i].file
		}
		replace[at] = filepath.Join(dir, fmt.Sprintf("source%d.go", i))
		if err := os.WriteFile(replace[at], text, 0o600); err != nil {
			return nil, err
		}
	}
	return replace, nil
}

// switchText is the Go code that chooses the mutant and records which places a test reaches.
const switchText = `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var mutantChosen, _ = strconv.Atoi(os.Getenv("MUTANT"))

var mutantTrace = func() *os.File {
	f, _ := os.OpenFile(os.Getenv("MUTANT_TRACE"), os.O_APPEND|os.O_WRONLY, 0)
	return f
}()

var mutantReached [%d]atomic.Bool

func mutantOn(id int) bool { return id == mutantChosen || mutantTrace != nil && mutantReach(id) }

func mutantReach(id int) bool {
	if mutantReached[id].CompareAndSwap(false, true) {
		_, _ = mutantTrace.WriteString(strconv.Itoa(id) + "\n")
	}
	return false
}
`

// writer writes a source with the variants of its sites.
type writer struct {
	text  []byte
	dead  map[int]bool
	out   bytes.Buffer
	spans []span
}

// part writes the source between two offsets. sites are the sites between them, with outer
// ones before inner ones.
func (w *writer) part(sites []*site, from, to int) {
	for i := 0; i < len(sites); {
		s := sites[i]
		end := i + 1
		for end < len(sites) && sites[end].from < s.to {
			end++
		}
		w.out.Write(w.text[from:s.from])
		w.site(s, sites[i+1:end])
		from, i = s.to, end
	}
	w.out.Write(w.text[from:to])
}

func (w *writer) site(s *site, inside []*site) {
	var ids []int
	for _, m := range s.variants {
		if !w.dead[m.id] {
			ids = append(ids, m.id)
		}
	}
	if len(ids) == 0 {
		w.part(inside, s.from, s.to)
		return
	}
	begin := w.out.Len()
	open, between, last, end := "", " else ", " else { ", " }"
	switch s.form {
	case expression:
		open, between, last, end = "func() "+s.typ+" { ", "; ", "; return ", " }()"
	case simple:
		open, end = "func() { ", " } }()"
	}
	w.out.WriteString(open)
	for i, m := range s.variants {
		if w.dead[m.id] {
			continue
		}
		if i > 0 && ids[0] != m.id {
			w.out.WriteString(between)
		}
		from := w.out.Len()
		fmt.Fprintf(&w.out, "if mutantOn(%d) { ", m.id)
		if s.form == expression {
			w.out.WriteString("return ")
		}
		w.out.WriteString(m.text + " }")
		w.spans = append(w.spans, span{from: from, to: w.out.Len(), ids: []int{m.id}})
	}
	w.out.WriteString(last)
	w.part(inside, s.from, s.to)
	w.out.WriteString(end)
	w.spans = append(w.spans, span{from: begin, to: w.out.Len(), ids: ids})
}
