package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"strings"
)

// mutant is one small change of the program, which a test should notice.
type mutant struct {
	id       int
	file     string // from the root of the repository
	line     int
	key      string // place and change; it stays the same as long as the code does: see allowed
	source   int    // index of its source in the unit
	from, to int    // offsets in the source, of a constant's declaration
	text     string // the text that replaces it
}

// form says how a site must be written so that one of its variants can be chosen at run
// time.
type form int

const (
	expression form = iota + 1
	statement
	simple // a statement where the grammar allows only a simple one
)

// site is a part of a source that has variants. Two sites either do not overlap, or one lies
// inside the other.
type site struct {
	form     form
	from, to int    // offsets
	typ      string // of an expression
	variants []*mutant
}

// finder finds the places that can be changed in one source.
type finder struct {
	u       *unit
	p       *parsed
	source  int
	file    *ast.File
	imports map[string]string // import path to the name it has in the file
	keys    map[string]int    // how often each key was given
	next    *int              // the next mutant's id

	within  string         // the function or declaration
	results []*types.Tuple // result types of the enclosing functions, innermost last
	parents []ast.Node     // nodes that enclose the current one, innermost last

	sites []*site
	alone []*mutant // mutants that need a build of their own: changed constants
}

func (f *finder) text(n ast.Node) string {
	return string(f.u.sources[f.source].text[f.offset(n.Pos()):f.offset(n.End())])
}

func (f *finder) offset(p token.Pos) int { return f.p.fset.Position(p).Offset }

// mutant creates a mutant. was and now are the code before and after, for people to read.
func (f *finder) mutant(at ast.Node, was, now, text string) *mutant {
	s := f.u.sources[f.source]
	m := &mutant{
		id: *f.next, file: s.name, line: f.p.fset.Position(at.Pos()).Line, source: f.source,
		from: f.offset(at.Pos()), to: f.offset(at.End()), text: text,
	}
	*f.next++
	was, now = differing(short(was), short(now))
	m.key = fmt.Sprintf("%s %s: %s -> %s", s.name, f.within, was, now)
	if f.keys[m.key]++; f.keys[m.key] > 1 {
		m.key = fmt.Sprintf("%s #%d", m.key, f.keys[m.key])
	}
	return m
}

// differing shortens two long texts to the parts in which they differ.
func differing(was, now string) (string, string) {
	const wide, margin = 100, 24
	if len(was) <= wide && len(now) <= wide {
		return was, now
	}
	from := 0
	for from < min(len(was), len(now)) && was[from] == now[from] {
		from++
	}
	end := 0
	for end < min(len(was), len(now))-from && was[len(was)-1-end] == now[len(now)-1-end] {
		end++
	}
	cut := func(s string) string {
		begin, stop := max(0, from-margin), min(len(s), len(s)-end+margin)
		if stop-begin > wide {
			return strings.ToValidUTF8(s[begin:begin+wide], "") + "..."
		}
		return strings.ToValidUTF8(s[begin:stop], "")
	}
	return cut(was), cut(now)
}

func (f *finder) add(at ast.Node, kind form, typ types.Type, variants ...*mutant) {
	s := &site{form: kind, from: f.offset(at.Pos()), to: f.offset(at.End()), variants: variants}
	if kind == expression {
		var ok bool
		if s.typ, ok = f.name(typ); !ok {
			return
		}
	}
	if len(variants) > 0 {
		f.sites = append(f.sites, s)
	}
}

// name returns a type as the file would write it.
func (f *finder) name(t types.Type) (string, bool) {
	known := true
	text := types.TypeString(types.Default(t), func(p *types.Package) string {
		if p == f.p.types {
			return ""
		}
		name, ok := f.imports[p.Path()]
		known = known && ok
		return name
	})
	return text, known && !strings.Contains(text, "invalid type")
}

// find finds all mutants of the file.
func (f *finder) find() {
	f.imports = map[string]string{}
	for _, s := range f.file.Imports {
		at := strings.Trim(s.Path.Value, `"`)
		if s.Name != nil {
			f.imports[at] = s.Name.Name
			continue
		}
		for _, p := range f.p.types.Imports() {
			if p.Path() == at {
				f.imports[at] = p.Name()
			}
		}
	}
	for _, d := range f.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Body == nil {
				break
			}
			f.within = d.Name.Name
			if d.Recv != nil {
				f.within = receiver(d.Recv.List[0].Type) + "." + f.within
			}
			f.function(f.p.info.Defs[d.Name].Type(), d.Body)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					f.values(d.Tok, v)
				}
			}
		}
	}
}

func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.IndexListExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}

func (f *finder) values(tok token.Token, v *ast.ValueSpec) {
	for i, x := range v.Values {
		if len(f.parents) == 0 && i < len(v.Names) {
			f.within = tok.String() + " " + v.Names[i].Name
		}
		if tok != token.CONST {
			f.walk(x)
			continue
		}
		for _, c := range f.constants(x) {
			f.alone = append(f.alone, f.mutant(c.at, f.text(x), f.replaced(x, c.at, c.text), c.text))
		}
	}
}

func (f *finder) function(t types.Type, body *ast.BlockStmt) {
	sig, ok := t.(*types.Signature)
	if !ok {
		return
	}
	f.results = append(f.results, sig.Results())
	f.walk(body)
	f.results = f.results[:len(f.results)-1]
}

// replaced returns the text of outer after the text of inner, a part of it, was replaced.
func (f *finder) replaced(outer, inner ast.Node, text string) string {
	all, from := f.text(outer), f.offset(outer.Pos())
	return all[:f.offset(inner.Pos())-from] + text + all[f.offset(inner.End())-from:]
}

// part is a mutant that changes a part of an expression.
type part struct {
	at   ast.Node
	text string
}

// constants adds the mutants of a constant integer: changes of its literals and operators.
func (f *finder) constants(x ast.Expr) (all []part) {
	if b, ok := f.p.info.TypeOf(x).Underlying().(*types.Basic); !ok || b.Info()&types.IsInteger == 0 {
		return nil
	}
	ast.Inspect(x, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ArrayType:
			return false
		case *ast.BasicLit:
			all = append(all, f.literal(n)...)
		case *ast.BinaryExpr:
			for _, op := range swaps[n.Op] {
				all = append(all, part{n, f.swapped(n, op)})
			}
		}
		return true
	})
	return all
}

// literal is an integer or a character, one more and one less.
func (f *finder) literal(n *ast.BasicLit) (all []part) {
	if n.Kind != token.INT && n.Kind != token.CHAR {
		return nil
	}
	all = append(all, part{n, "(" + n.Value + "+1)"})
	if v, ok := constant.Int64Val(constant.ToInt(constant.MakeFromLiteral(n.Value, n.Kind, 0))); !ok || v != 0 {
		all = append(all, part{n, "(" + n.Value + "-1)"})
	}
	return all
}

// swaps are the operators that replace an operator; the first one changes a boundary.
var swaps = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.MUL},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.OR}, token.AND_NOT: {token.AND},
	token.SHL: {token.SHR}, token.SHR: {token.SHL},
}

// assigns are the same for assignment operators.
var assigns = map[token.Token]token.Token{
	token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN, token.MUL_ASSIGN: token.QUO_ASSIGN,
	token.QUO_ASSIGN: token.MUL_ASSIGN, token.REM_ASSIGN: token.MUL_ASSIGN, token.AND_ASSIGN: token.OR_ASSIGN,
	token.OR_ASSIGN: token.AND_ASSIGN, token.XOR_ASSIGN: token.OR_ASSIGN, token.SHL_ASSIGN: token.SHR_ASSIGN,
	token.SHR_ASSIGN: token.SHL_ASSIGN, token.AND_NOT_ASSIGN: token.AND_ASSIGN,
}
