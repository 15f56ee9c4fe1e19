package main

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
)

// walk finds the sites in n and below. It calls itself for each child, so that each kind of
// node can leave out the parts that must stay constant.
func (f *finder) walk(n ast.Node) {
	if x, ok := n.(ast.Expr); ok && f.constant(x) {
		return
	}
	f.parents = append(f.parents, n)
	defer func() { f.parents = f.parents[:len(f.parents)-1] }()
	switch n := n.(type) {
	case *ast.FuncLit:
		f.function(f.p.info.TypeOf(n), n.Body)
		return
	case *ast.BlockStmt:
		f.statements(n.List)
	case *ast.CaseClause:
		if f.tagless() {
			for _, x := range n.List {
				f.condition(x)
			}
		}
		f.statements(n.Body)
	case *ast.CommClause:
		f.statements(n.Body)
	case *ast.IfStmt:
		f.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			f.condition(n.Cond)
		}
		if n.Post != nil {
			f.statement(n.Post, simple)
		}
	case *ast.ReturnStmt:
		f.returned(n)
	case *ast.BinaryExpr:
		f.binary(n)
	case *ast.DeclStmt:
		if d := n.Decl.(*ast.GenDecl); d.Tok != token.TYPE {
			for _, s := range d.Specs {
				f.values(d.Tok, s.(*ast.ValueSpec))
			}
		}
		return
	}
	for _, c := range f.children(n) {
		f.walk(c)
	}
}

// children returns the parts of n whose values may be another one at run time.
func (f *finder) children(n ast.Node) []ast.Node {
	var all []ast.Node
	ast.Inspect(n, func(c ast.Node) bool {
		if c != nil && c != n {
			all = append(all, c)
		}
		return c == n
	})
	switch n := n.(type) {
	case *ast.ArrayType, *ast.StructType, *ast.FuncType, *ast.InterfaceType, *ast.MapType, *ast.ChanType:
		return nil
	case *ast.KeyValueExpr:
		return []ast.Node{n.Value}
	case *ast.CallExpr:
		// The capacity that is allocated changes no result.
		if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "make" {
			if _, slice := f.p.info.TypeOf(n).Underlying().(*types.Slice); slice && len(n.Args) > 1 {
				return []ast.Node{n.Args[1]}
			}
			return nil
		}
	}
	return all
}

// tagless reports whether the current clause belongs to a switch over conditions.
func (f *finder) tagless() bool {
	if len(f.parents) < 3 {
		return false
	}
	s, ok := f.parents[len(f.parents)-3].(*ast.SwitchStmt)
	return ok && s.Tag == nil
}

// constant adds the site of a constant, and reports whether x is one.
func (f *finder) constant(x ast.Expr) bool {
	tv, ok := f.p.info.Types[x]
	if !ok || tv.Value == nil {
		return false
	}
	if id, ok := x.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
		if f.beside(x) {
			return true
		}
		outer := f.around(x)
		other := map[string]string{"true": "false", "false": "true"}[id.Name]
		f.add(x, expression, tv.Type, f.mutant(x, f.text(outer), f.replaced(outer, x, other), other))
		return true
	}
	var variants []*mutant
	for _, c := range f.constants(x) {
		outer := f.around(x)
		variants = append(variants, f.mutant(x, f.text(outer), f.replaced(outer, c.at, c.text), f.replaced(x, c.at, c.text)))
	}
	f.add(x, expression, tv.Type, variants...)
	return true
}

// around returns the smallest node around x that shows a reader what x is for.
func (f *finder) around(x ast.Node) ast.Node {
	const wide = 100
	if len(f.parents) == 0 {
		return x
	}
	outer := f.parents[len(f.parents)-1]
	switch outer.(type) {
	case *ast.BlockStmt, *ast.ForStmt, *ast.RangeStmt, *ast.IfStmt, *ast.CaseClause, *ast.SwitchStmt, *ast.CommClause:
		return x
	}
	if len(short(f.text(outer))) > wide {
		return x
	}
	return outer
}

func (f *finder) binary(n *ast.BinaryExpr) {
	t := f.p.info.TypeOf(n)
	if n.Op == token.ADD {
		if b, ok := t.Underlying().(*types.Basic); ok && b.Info()&types.IsString != 0 {
			return
		}
	}
	var variants []*mutant
	for _, op := range swaps[n.Op] {
		now := f.swapped(n, op)
		variants = append(variants, f.mutant(n, f.text(n), now, now))
	}
	if n.Op == token.LAND || n.Op == token.LOR {
		f.condition(n.X)
		f.condition(n.Y)
	}
	f.add(n, expression, t, variants...)
}

// swapped returns the text of an operation with another operator.
func (f *finder) swapped(n *ast.BinaryExpr, op token.Token) string {
	if op.Precedence() == n.Op.Precedence() {
		return f.text(n.X) + " " + op.String() + " " + f.text(n.Y)
	}
	return "(" + f.grouped(n.X) + " " + op.String() + " " + f.grouped(n.Y) + ")"
}

// grouped returns the text of an operand, in parentheses if it is an operation.
func (f *finder) grouped(x ast.Expr) string {
	if _, ok := x.(*ast.BinaryExpr); ok {
		return "(" + f.text(x) + ")"
	}
	return f.text(x)
}

// condition adds the negation of a condition that binary does not handle: a call, a variable.
func (f *finder) condition(x ast.Expr) {
	switch x := x.(type) {
	case *ast.BinaryExpr:
		return
	case *ast.ParenExpr:
		f.condition(x.X)
		return
	case *ast.UnaryExpr:
		if x.Op == token.NOT {
			f.add(x, expression, types.Typ[types.Bool], f.mutant(x, f.text(x), f.text(x.X), f.text(x.X)))
		}
		return
	}
	if tv := f.p.info.Types[x]; tv.Value != nil {
		return
	}
	now := "!" + f.text(x)
	f.add(x, expression, types.Typ[types.Bool], f.mutant(x, f.text(x), now, now))
}

// returned adds mutants that return a zero value instead of a result. A result that is
// returned together with an error or with false is not changed, because no caller may use it.
func (f *finder) returned(n *ast.ReturnStmt) {
	results := f.results[len(f.results)-1]
	if results.Len() != len(n.Results) {
		return
	}
	refused := false
	for i, x := range n.Results {
		id, ok := x.(*ast.Ident)
		refused = refused || ok && id.Name == "false" || isError(results.At(i).Type()) && (!ok || id.Name != "nil")
	}
	for i, x := range n.Results {
		t := results.At(i).Type()
		b, basic := t.Underlying().(*types.Basic)
		if basic && b.Info()&types.IsBoolean != 0 {
			f.condition(x)
			continue
		}
		lit, composite := x.(*ast.CompositeLit)
		id, named := x.(*ast.Ident)
		switch {
		case zero(f.p.info.Types[x].Value) || len(f.constantsIn(x)) > 0:
		case composite && len(lit.Elts) == 0, named && id.Name == "nil":
		case refused && len(n.Results) > 1 && !isError(t):
		default:
			name, ok := f.name(t)
			if !ok {
				break
			}
			f.add(x, expression, t, f.mutant(x, f.text(n), f.replaced(n, x, "zero"), "*new("+name+")"))
		}
	}
}

// beside reports whether x is returned together with an error.
func (f *finder) beside(x ast.Expr) bool {
	if len(f.parents) == 0 || len(f.results) == 0 {
		return false
	}
	ret, ok := f.parents[len(f.parents)-1].(*ast.ReturnStmt)
	results := f.results[len(f.results)-1]
	if !ok || results.Len() != len(ret.Results) {
		return false
	}
	for i, other := range ret.Results {
		if id, ok := other.(*ast.Ident); other != x && isError(results.At(i).Type()) && (!ok || id.Name != "nil") {
			return true
		}
	}
	return false
}

// zero reports whether a constant is the zero value already.
func zero(v constant.Value) bool {
	return v != nil && (v.Kind() == constant.String && constant.StringVal(v) == "" || v.Kind() == constant.Int && constant.Sign(v) == 0)
}

// constantsIn adds the mutants of x if it is a constant.
func (f *finder) constantsIn(x ast.Expr) []part {
	if f.p.info.Types[x].Value == nil {
		return nil
	}
	return f.constants(x)
}

func isError(t types.Type) bool { return types.Identical(t, types.Universe.Lookup("error").Type()) }

func (f *finder) statements(list []ast.Stmt) {
	for _, s := range list {
		f.statement(s, statement)
	}
}

// statement adds mutants that leave out a statement or replace an assignment's operator.
func (f *finder) statement(s ast.Stmt, kind form) {
	var variants []*mutant
	turned := func(now string) { variants = append(variants, f.mutant(s, f.text(s), now, now)) }
	left := false
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		if !ok {
			left = true
			break
		}
		id, ok := call.Fun.(*ast.Ident)
		left = !ok || id.Name != "panic"
	case *ast.AssignStmt:
		if op := assigns[s.Tok]; op != 0 && !f.joins(s) {
			turned(f.text(s.Lhs[0]) + " " + op.String() + " " + f.text(s.Rhs[0]))
		}
		left = s.Tok != token.DEFINE
	case *ast.IncDecStmt:
		op := map[token.Token]string{token.INC: "--", token.DEC: "++"}[s.Tok]
		turned(f.text(s.X) + op)
		left = true
	case *ast.BranchStmt:
		left = s.Tok == token.BREAK || s.Tok == token.CONTINUE
	case *ast.ReturnStmt:
		left = len(s.Results) == 0
	case *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		left = true
	}
	if left && kind == statement {
		variants = append(variants, f.mutant(s, f.text(s), "(nothing)", ""))
	}
	f.add(s, kind, nil, variants...)
}

// joins reports whether += concatenates strings.
func (f *finder) joins(s *ast.AssignStmt) bool {
	b, ok := f.p.info.TypeOf(s.Lhs[0]).Underlying().(*types.Basic)
	return ok && b.Info()&types.IsString != 0
}
