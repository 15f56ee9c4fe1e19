package lint

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// noInit forbids func init. Such a function runs before main: a program cannot choose
// whether and when it runs, and it cannot return an error.
func noInit(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				all = append(all, f.problem(fn, "func init: do it in a constructor, or in a function that returns the value"))
			}
		}
	}
	return all
}

// globalsAllowed are package-level variables that are allowed although the rule refuses them.
// The names have the form "folder.name".
var globalsAllowed = map[string]string{
	"backend/sqlite.createMu": "POSIX locks belong to the process, whatever Store took them",
}

// constantCalls are functions that make a value which is never changed from constants.
var constantCalls = map[string]bool{
	"errors.New": true, "fmt.Errorf": true, "crc32.MakeTable": true, "regexp.MustCompile": true,
	"strings.NewReplacer": true, "context.Background": true, "base64.RawURLEncoding.Strict": true, "big.NewInt": true, "time.Unix": true,
}

// globals forbids global state. A package-level variable in production code is allowed only
// if it is a constant that Go cannot express as one: an assertion (_), a sentinel error, a
// table made from a literal or from one of constantCalls, or an embedded file. And no code in
// its package may assign to it or take its address.
func globals(t *Tree) []Problem {
	var all []Problem
	written := map[string]map[string]bool{} // folder -> names written to
	for _, f := range t.Go {
		if !f.Test {
			writes(f, written)
		}
	}
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		for _, d := range f.AST.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if name.Name == "_" || globalsAllowed[f.Dir+"."+name.Name] != "" {
						continue
					}
					if written[f.Dir][name.Name] {
						all = append(all, f.problem(name, "package-level %s is assigned or its address is taken: state belongs into a struct that a constructor returns (if what is changed is a local variable of the same name, rename that)", name.Name))
						continue
					}
					var value ast.Expr
					if i < len(v.Values) {
						value = v.Values[i]
					}
					if !constant(name.Name, value) && !embedded(g, v) {
						all = append(all, f.problem(name, "package-level %s is neither a sentinel error nor a table made from constants: make it a const, a function or a field, or allow it with a reason in internal/lint/code.go", name.Name))
					}
				}
			}
		}
	}
	return all
}

func constant(name string, value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.CompositeLit:
		return !strings.HasPrefix(dotted(v.Type), "sync.") && !strings.HasPrefix(dotted(v.Type), "atomic.")
	case *ast.BasicLit:
		return true
	case *ast.SelectorExpr: // a sentinel error of a package below, under the name that users know
		return strings.HasPrefix(name, "Err") && dotted(v) == "errs."+name
	case *ast.CallExpr:
		switch fun := v.Fun.(type) {
		case *ast.ArrayType: // a conversion
			return true
		case *ast.FuncLit: // a table computed where it is declared
			if results := fun.Type.Results; len(v.Args) == 0 && results.NumFields() == 1 {
				_, array := results.List[0].Type.(*ast.ArrayType)
				return array
			}
			return false
		}
		return constantCalls[dotted(v.Fun)] || strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err")
	}
	return false
}

func embedded(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

// dotted writes a selector such as regexp.MustCompile.
func dotted(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return dotted(x.X) + "." + x.Sel.Name
	}
	return ""
}

// writes collects the names that f assigns to, counts up, or takes the address of. It leaves
// out names that are local variables of the function.
func writes(f *File, written map[string]map[string]bool) {
	if written[f.Dir] == nil {
		written[f.Dir] = map[string]bool{}
	}
	for _, d := range f.AST.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		local := map[string]bool{}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				for _, name := range n.Names {
					local[name.Name] = true
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					local[name.Name] = true
				}
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, l := range n.Lhs {
						local[root(l)] = true
					}
				}
			case *ast.RangeStmt:
				if n.Tok == token.DEFINE {
					local[root(n.Key)], local[root(n.Value)] = true, true
				}
			}
			return true
		})
		write := func(x ast.Expr) {
			if name := root(x); name != "" && !local[name] {
				written[f.Dir][name] = true
			}
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					write(l)
				}
			case *ast.IncDecStmt:
				write(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					write(n.X)
				}
			case *ast.CallExpr:
				if name := dotted(n.Fun); (name == "delete" || name == "clear" || name == "copy") && len(n.Args) > 0 {
					write(n.Args[0])
				}
			}
			return true
		})
	}
}

// root is the variable at the left end of an expression: t of t[i].f.
func root(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return root(x.X)
	case *ast.IndexExpr:
		return root(x.X)
	case *ast.SliceExpr:
		return root(x.X)
	case *ast.ParenExpr:
		return root(x.X)
	case *ast.StarExpr:
		return root(x.X)
	}
	return ""
}

// clockAllowed are the files and folders that may read the machine's clock. A folder stands
// for all folders below it as well.
var clockAllowed = map[string]string{
	"internal/clock":              "the default of Config.Clock; Batch.AsOf is a time of the machine's monotonic clock",
	"backend/memory":              "Batch.AsOf proves freshness by the machine's monotonic clock (backend.Watcher)",
	"backend/badger":              "Batch.AsOf proves freshness by the machine's monotonic clock (backend.Watcher); maintenance has its own timer",
	"backend/postgres":            "Batch.AsOf proves freshness by the machine's monotonic clock (backend.Watcher)",
	"backend/etcd":                "Batch.AsOf proves freshness by the machine's monotonic clock (backend.Watcher); where a list may end is guessed by the wall clock",
	"backend/internal/writequeue": "how long a write waits is measured on the machine's monotonic clock",
	"backend/sqlite":              "Batch.AsOf proves freshness by the machine's monotonic clock (backend.Watcher)",

	"backend/backendtest":        "a test suite measures how long a store takes",
	"internal/await":             "waits in tests for what must come",
	"internal/link":              "a network for tests, that takes its time",
	"internal/fleettest/rolling": "a program of tests says when an answer began, to other processes",
	"internal/pgtest":            "waits for servers of tests to start and to end",
	"examples":                   "programs, not the library",
	"cmd":                        "a program, not the library",
	"bench":                      "measures",
	"tools":                      "programs of the build",
}

// clock forbids the library to read the machine's clock. Code that reads it, and not the
// clock of the configuration, cannot be tested at another time.
func clock(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Test || clockAllowed[f.Path] != "" || allowedBelow(clockAllowed, f.Dir) {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || f.imported(s.X) != "time" {
				return true
			}
			switch s.Sel.Name {
			case "Now", "Since", "Until":
				all = append(all, f.problem(s, "time.%s reads the machine's clock: take the time from Config.Clock or as an argument; a place where that is wrong goes into clockAllowed (internal/lint/code.go) with its reason", s.Sel.Name))
			}
			return true
		})
	}
	return all
}

// secretName matches variables and fields with secret contents. To compare them must take
// the same time whatever they contain.
var secretName = regexp.MustCompile(`(?i)(digest|secret|mac|password|signature)$`)

// secretFolders hold the code that sees secrets or digests.
var secretFolders = []string{".", "cache", "internal", "httpauth", "oauth"}

// digests forbids comparisons of secrets or digests that take longer the more of their bytes
// are equal, because an attacker could measure that.
func digests(t *Tree) []Problem {
	const fix = "compare with Digest.Equal or crypto/subtle.ConstantTimeCompare"
	var all []Problem
	for _, f := range t.Go {
		if f.Test || f.Dir == "internal/lint" || !slices.ContainsFunc(secretFolders, func(s string) bool {
			return f.Dir == s || s != "." && under(f.Dir, s)
		}) {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				at, name := f.imported(n.X), n.Sel.Name
				if at == "bytes" && (name == "Equal" || name == "Compare") || at == "reflect" && name == "DeepEqual" {
					all = append(all, f.problem(n, "%s.%s stops at the first difference: %s", at, name, fix))
				}
			case *ast.BinaryExpr:
				if n.Op != token.EQL && n.Op != token.NEQ {
					break
				}
				for x, y := range map[ast.Expr]ast.Expr{n.X: n.Y, n.Y: n.X} {
					if secretName.MatchString(last(x)) && !blank(y) {
						all = append(all, f.problem(n, "%s is compared with %s: %s", last(x), n.Op, fix))
						break
					}
				}
			}
			return true
		})
	}
	return all
}

// last is the name at the right end of an operand: b of a.b, a of a[:].
func last(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	case *ast.ParenExpr:
		return last(x.X)
	case *ast.StarExpr:
		return last(x.X)
	}
	return ""
}

// blank reports whether an operand is nil, an empty string or an empty composite. A
// comparison with those reveals only whether there is a value.
func blank(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "nil" || x.Name == "true" || x.Name == "false"
	case *ast.BasicLit:
		return x.Value == `""` || x.Value == "``"
	case *ast.ParenExpr:
		return blank(x.X)
	case *ast.CompositeLit:
		return len(x.Elts) == 0
	}
	return false
}

// pasetoAllowed are the names of the first PASETO library that are safe to use: the
// constructor of the version 2 protocol, whose four methods take raw bytes. With other
// functions of that library, the token chooses the algorithm.
var pasetoAllowed = map[string]map[string]bool{
	libO1egl: {"NewV2": true, "V2": true, "ErrInvalidSignature": true, "ErrInvalidTokenAuth": true},
}

// pasetoForbidden are names of the second library that make a decision which internal/paseto
// makes itself: the version of a token, or whether it has expired.
var pasetoForbidden = regexp.MustCompile(`^(NewParser|NewParserForValidNow|NewProtocol|NewRawParser.*|.*V3.*)$`)

// pasetoUsers are the folders that may import the libraries: internal/paseto to use them, the
// others to compare with them.
var pasetoUsers = []string{"internal/paseto", "internal/interop", "bench/peers"}

// paseto allows the PASETO libraries in internal/paseto only, which calls them safely.
func paseto(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		for _, s := range f.AST.Imports {
			at := importPath(s)
			if at == libO1eglOld || under(at, libO1eglOld) && !under(at, libO1egl) {
				all = append(all, f.problem(s, "%s is the abandoned version 1 of the module: import %s", at, libO1egl))
			}
			if (under(at, libO1egl) || under(at, libAidan)) && !slices.Contains(pasetoUsers, f.Dir) && (!f.Test || f.Dir != "bench") {
				all = append(all, f.problem(s, "%s may be imported by internal/paseto alone: go through its guards", at))
			}
		}
		if f.Test {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch at := f.imported(s.X); {
			case pasetoAllowed[at] != nil && !pasetoAllowed[at][s.Sel.Name]:
				all = append(all, f.problem(s, "%s.%s: call only Sign, Verify, Encrypt and Decrypt of NewV2 with raw bytes; parsing, claims and time rules are ours", at, s.Sel.Name))
			case at == libAidan && pasetoForbidden.MatchString(s.Sel.Name):
				all = append(all, f.problem(s, "%s.%s: the version is the key's and the time rules are ours; use NewParserWithoutExpiryCheck and a v4 key", at, s.Sel.Name))
			}
			return true
		})
	}
	return all
}
