package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// unit is one package: its sources are mutated, and its tests are run.
type unit struct {
	dir     string // on disk
	rel     string // from the root of the repository; "." for the root
	path    string // import path
	sources []*source
	exports map[string]string // import path to the file with its export data
}

// source is one Go file of a unit.
type source struct {
	name string // from the root of the repository
	file string // on disk
	text []byte
	at   bool // whether it is mutated
}

// load reads the package in folder rel of the repository. Only the files named in only are
// mutated; if only is empty, all are.
func load(root, rel string, only []string) (*unit, error) {
	u := &unit{dir: filepath.Join(root, rel), rel: rel, exports: map[string]string{}}
	var files []string
	err := list(u.dir, func(p listed) {
		u.path, files = p.ImportPath, p.GoFiles
	}, "-json=ImportPath,GoFiles", ".")
	if err != nil {
		return nil, err
	}
	err = list(u.dir, func(p listed) { u.exports[p.ImportPath] = p.Export }, "-deps", "-export", "-json=ImportPath,Export", ".", "os", "strconv", "sync/atomic") // the switch (see switchText) imports the last three
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, name := range only {
		wanted[name] = true
	}
	for _, name := range files {
		s := &source{name: path.Join(rel, name), file: filepath.Join(u.dir, name), at: len(only) == 0 || wanted[name]}
		delete(wanted, name)
		if s.text, err = os.ReadFile(s.file); err != nil {
			return nil, err
		}
		u.sources = append(u.sources, s)
	}
	for name := range wanted {
		return nil, fmt.Errorf("%s has no file %s", rel, name)
	}
	return u, nil
}

// listed is what the go command says about a package.
type listed struct {
	ImportPath, Export string
	GoFiles            []string
}

func list(dir string, each func(listed), args ...string) error {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list in %s: %w", dir, err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("go list in %s: %w", dir, err)
		}
		each(p)
	}
}

// parsed is a unit that was parsed and type-checked.
type parsed struct {
	fset  *token.FileSet
	files []*ast.File // in the order of the unit's sources
	info  *types.Info
	types *types.Package
	wrong []types.Error // the errors that the compiler would report
}

// check parses and type-checks the unit with the given texts: one for each source, and after
// them any number of others. It returns an error only for a syntax error.
func (u *unit) check(texts [][]byte) (*parsed, error) {
	p := &parsed{fset: token.NewFileSet(), info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
	}}
	for i, text := range texts {
		name := "more.go"
		if i < len(u.sources) {
			name = u.sources[i].name
		}
		f, err := parser.ParseFile(p.fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		p.files = append(p.files, f)
	}
	cfg := types.Config{
		Importer: importer.ForCompiler(p.fset, "gc", func(at string) (io.ReadCloser, error) {
			if u.exports[at] == "" {
				return nil, fmt.Errorf("%s is not among the dependencies of %s", at, u.path)
			}
			return os.Open(u.exports[at])
		}),
		Error: func(err error) {
			var e types.Error
			if errors.As(err, &e) {
				p.wrong = append(p.wrong, e)
			}
		},
	}
	p.types, _ = cfg.Check(u.path, p.fset, p.files, p.info)
	if p.types == nil {
		return nil, fmt.Errorf("%s cannot be checked: %v", u.path, p.wrong)
	}
	return p, nil
}

// short returns a text in one line.
func short(text string) string { return strings.Join(strings.Fields(text), " ") }
