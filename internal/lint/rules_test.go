package lint_test

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/fobkit/fob/internal/lint"
)

// snippet is a small repository and the problems that a rule must find in it.
type snippet struct {
	rule  string
	files map[string]string
	want  []string // one part of the text of each problem, in order; none if the rule must find nothing
}

// fence is what opens and closes a code block.
const fence = "```"

func snippets() map[string]snippet {
	own := lint.Module
	long := func(n int) string { return "package a\n" + strings.Repeat("//\n", n-1) }
	return map[string]snippet{
		// Layers.
		"a store that imports the root": {"imports", goFile("backend/memory/a.go", `package memory; import _ "`+own+`"`), []string{"backend/memory may not import " + own}},
		"the contract imports ours":     {"imports", goFile("backend/a.go", `package backend; import _ "`+own+`/cache"`), []string{"may import nothing of ours"}},
		"the cache imports ours":        {"imports", goFile("cache/a.go", `package cache; import _ "`+own+`/backend"`), []string{"may import nothing of ours"}},
		"the root imports a middleware": {"imports", goFile("a.go", `package fob; import _ "`+own+`/httpauth"`), []string{"may not import"}},
		"the root imports badger":       {"imports", goFile("a.go", `package fob; import _ "github.com/dgraph-io/badger/v4"`), []string{"of other people's modules"}},
		"the root imports a heavy one":  {"imports", goFile("a.go", `package fob; import _ "`+own+`/backend/badger"`), []string{"may not import"}},
		"internal imports the root":     {"imports", goFile("internal/a/a.go", `package a; import _ "`+own+`"`), []string{"may not import"}},
		"a folder nobody drew":          {"imports", goFile("util/a.go", `package util`), []string{"has no line in layers"}},
		"sound layers": {"imports", map[string]string{
			"a.go":                     `package fob; import (_ "` + own + `/backend/memory"; _ "` + own + `/internal/keytext"; _ "net/http"; _ "golang.org/x/sync/singleflight")`,
			"backend/badger/a.go":      `package badger; import (_ "` + own + `/backend"; _ "github.com/dgraph-io/badger/v4/options")`,
			"examples/quickstart/a.go": `package main; import (_ "` + own + `"; _ "` + own + `/backend/badger"; _ "` + own + `/httpauth")`,
			"a_test.go":                `package fob_test; import _ "` + own + `/backend/badger"`,
		}, nil},
		"testing in production":    {"testing", goFile("httpauth/a.go", `package httpauth; import _ "testing/fstest"`), []string{"testing/fstest is imported outside tests"}},
		"testify in production":    {"testing", goFile("a.go", `package fob; import _ "github.com/stretchr/testify/require"`), []string{"move this code into a _test.go file"}},
		"the suite in production":  {"testing", goFile("a.go", `package fob; import _ "`+own+`/backend/backendtest"`), []string{"backend/backendtest is imported outside tests"}},
		"waiting in production":    {"testing", goFile("a.go", `package fob; import _ "`+own+`/internal/await"`), []string{"internal/await is imported outside tests"}},
		"testing where it belongs": {"testing", map[string]string{"a_test.go": `package a; import _ "testing"`, "fobtest/a.go": `package fobtest; import _ "testing"`}, nil},
		"predictable numbers":      {"rand", goFile("a.go", `package fob; import _ "math/rand/v2"`), []string{"use crypto/rand"}},
		"numbers in a test":        {"rand", map[string]string{"a_test.go": `package fob_test; import _ "math/rand/v2"`, "b.go": `package fob; import _ "crypto/rand"`}, nil},

		// Code.
		"init":        {"init", goFile("a.go", "package a\nfunc init() {}"), []string{"do it in a constructor"}},
		"init method": {"init", goFile("a.go", "package a\nfunc (t T) init() {}"), nil},
		"state in variables": {"globals", goFile("a.go", `package a
			var a int
			var b = map[string]int{"a": 1}
			var c = sync.Map{}
			var d = time.Now()
			var e, f = []int{1}, []int{2}
			func g() { b["a"]++; _ = &e; f[0] = 2 }`), []string{"a is neither", "b is assigned", "c is neither", "d is neither", "e is assigned", "f is assigned"}},
		"state emptied": {"globals", goFile("a.go", "package a\nvar b = map[string]int{}\nfunc g() { delete(b, \"a\") }"), []string{"b is assigned"}},
		"constants in variables": {"globals", goFile("a.go", `package a
			var _ I = (*T)(nil)
			var ErrA = reject("a")
			var ( b = errors.New("b"); c = [...]string{"x"}; d = []byte("y"); e = regexp.MustCompile("z") )
			var f = func() (t [4]byte) { t[0] = 1; return t }()
			func g() { b := 1; b++; var c [2]int; c[0] = 1; for d := range 3 { d++ } }`), nil},
		"the machine's clock":  {"clock", goFile("a.go", "package a\nimport \"time\"\nfunc f() { time.Now(); time.Since(x); time.Until(x) }"), []string{"time.Now", "time.Since", "time.Until"}},
		"a renamed clock":      {"clock", goFile("a.go", "package a\nimport t \"time\"\nvar now = t.Now"), []string{"time.Now"}},
		"clocks that may":      {"clock", map[string]string{"internal/clock/clock.go": "package clock\nimport \"time\"\nvar f = time.Now", "backend/badger/feed.go": "package b\nimport \"time\"\nvar f = time.Now", "a_test.go": "package a_test\nimport \"time\"\nvar f = time.Now", "c.go": "package c\nimport \"time\"\nvar f = time.Second"}, nil},
		"compared in part":     {"digests", goFile("a.go", "package a\nimport (\"bytes\"; \"reflect\")\nvar _ = bytes.Equal(a, b) || reflect.DeepEqual(a, b)\nvar _ = k.digest == d\nvar _ = want != r.StoredDigest"), []string{"bytes.Equal stops", "reflect.DeepEqual stops", "digest is compared with ==", "StoredDigest is compared with !="}},
		"compared as a whole":  {"digests", goFile("a.go", "package a\nvar _ = k.digest.Equal(d) || k.digest == nil || f.Secret != \"\" || k.digest == (Digest{})"), nil},
		"PASETO's parser":      {"paseto", goFile("internal/paseto/a.go", "package paseto\nimport \"github.com/o1egl/paseto/v2\"\nvar _ = paseto.Parse\nvar _ paseto.JSONToken\nvar _ = paseto.NewV1\nvar _ = paseto.NewV2"), []string{"Parse", "JSONToken", "NewV1"}},
		"PASETO from anywhere": {"paseto", goFile("token.go", "package fob\nimport _ \"github.com/o1egl/paseto/v2\"\nimport _ \"aidanwoods.dev/go-paseto\""), []string{"internal/paseto alone", "internal/paseto alone"}},
		"PASETO version 1":     {"paseto", goFile("internal/paseto/a.go", "package paseto\nimport _ \"github.com/o1egl/paseto\""), []string{"abandoned"}},
		"PASETO's own clock":   {"paseto", goFile("internal/paseto/a.go", "package paseto\nimport \"aidanwoods.dev/go-paseto\"\nvar _, _ = paseto.NewParser, paseto.NewV3SymmetricKey\nvar _ = paseto.NewParserWithoutExpiryCheck"), []string{"NewParser", "NewV3SymmetricKey"}},

		// Text.
		"no comment": {"comments", goFile("a.go", `package a
			type A struct{}
			func (A) B() {}
			func C() {} // C does.
			// makes D.
			func D() {}
			const E = 1
			const ( F = 1; G = 2 )
			// H is.
			type H interface { I(); J(); K() }`), []string{"A is exported", "B is exported", "C is exported", "D is exported", "E is exported", "F is exported", "G is exported", "I is exported", "J is exported", "K is exported"}},
		"comments": {"comments", map[string]string{"a.go": `package a
			// A is.
			type A struct{}
			// B does.
			func (A) B() {}
			func (b) C() {}
			// The numbers.
			const ( F = 1; G = 2 )
			// An H is.
			type H interface { I() }`, "backend/backend.go": "package backend\nfunc C() {} // does", "a_test.go": "package a_test\nfunc TestA() {}"}, nil},
		"long files":       {"size", map[string]string{"a.go": long(401), "a_test.go": long(701)}, []string{"401 lines", "701 lines"}},
		"files not long":   {"size", map[string]string{"a.go": long(400), "a_test.go": long(700)}, nil},
		"left for later":   {"todo", goFile("a.go", "package a\n// TODO: all of it.\n\n// Todor wrote this.\n"), []string{"do it now"}},
		"fuzz, no corpus":  {"fuzz", map[string]string{"a/a_test.go": "package a_test\nfunc FuzzA(f *testing.F) {}\nfunc FuzzB(f *testing.F) {}", "a/testdata/fuzz/FuzzB/x": "", "a/testdata/fuzz/FuzzAB/x": "go test fuzz v1\n"}, []string{"FuzzA has no corpus", "FuzzB has no corpus"}},
		"fuzz with corpus": {"fuzz", map[string]string{"a/a_test.go": "package a_test\nfunc FuzzA(f *testing.F) {}", "a/testdata/fuzz/FuzzA/x": "go test fuzz v1\nint(1)\n"}, nil},
		"test inside":      {"external", goFile("a_test.go", "package a"), []string{"make it package a_test"}},
		"tests outside":    {"external", map[string]string{"a_test.go": "package a_test", "export_test.go": "package a"}, nil},
		"dead links":       {"links", map[string]string{"docs/a.md": "# A\n[b](b.md) [up](../b.go)\n[c](#gone)", "docs/c.md": "[a](a.md#b)"}, []string{"b.md leads nowhere", "../b.go leads nowhere", "#gone names no heading", "a.md#b names no heading"}},
		"live links": {"links", map[string]string{"docs/a.md": "# What it is, in `go`\n[a](#what-it-is-in-go) [b](../b.go) [dir](../docs) [web](https://example.com/x) `[x](y)`\n" +
			fence + "\n[not](alink)\n" + fence + "\n", "b.go": "package b"}, nil},
		"README without commands": {"readme", map[string]string{"README.md": "# A\n" + fence + "sh\nmake all\ngo run ./examples/gone\n" + fence + "\n", "Makefile": "test:\n"}, []string{"command: story", "command: test", `"make all" names a target`, "./examples/gone, which does not exist"}},
		"README with two lines":   {"readme", map[string]string{"README.md": command("story", "go run ./a") + command("test", "go vet work\ngo test work"), "a/a.go": "package a", "go.work": "go 1.26\n"}, []string{"command: test"}},
		"README":                  {"readme", map[string]string{"README.md": command("story", "go run ./a") + command("test", "go test work") + fence + "sh\n$ make race # slow\n" + fence + "\n", "a/a.go": "package a", "Makefile": "race:\n", "go.work": "go 1.26\n"}, nil},
		"of one machine":          {"portable", map[string]string{"a.md": "see /ho" + "me/ann/x\nand (/wo" + "rk/main)", "b.sh": "GOPROXY=https://proxy.go" + "lang.org\n", "c": "\x00 /ro" + "ot/x"}, []string{"use a relative path", "use a relative path", "leave it to go env"}},
		"of all machines":         {"portable", map[string]string{"a.md": "https://example.com/home/x ./work/x $HOME/x /usr/bin/env\n"}, nil},
		"a module nobody tests":   {"workspace", map[string]string{"go.work": "go 1.26.0\nuse (\n\t.\n\t./b\n)\n", "go.mod": "", "b/go.mod": "", "c/go.mod": ""}, []string{"go work use c"}},
		"a page nobody wrote":     {"references", map[string]string{"a.go": "package a\n// See DESIGN.md, docs/b.md and b.md.\n", "docs/b.md": ""}, []string{"there is no DESIGN.md"}},
	}
}

// architectureSnippets are small repositories and their docs/architecture.md.
func architectureSnippets() map[string]snippet {
	const page = "docs/architecture.md"
	own := lint.Module
	code := map[string]string{
		"a.go":                 `package fob; import (_ "` + own + `/cache"; _ "` + own + `/internal/x")`,
		"a_test.go":            `package fob_test; import _ "` + own + `/httpauth"`,
		"cache/a.go":           `package cache`,
		"httpauth/a.go":        `package httpauth; import _ "` + own + `"`,
		"internal/x/a.go":      `package x; import (_ "` + own + `/internal/tool/y"; _ "net/http")`,
		"internal/tool/a.go":   `package tool; import _ "` + own + `/internal/tool/y"`,
		"internal/tool/y/a.go": `package y`,
		"internal/z/a_test.go": `package z_test`,
	}
	with := func(rooms, rest string, more ...string) map[string]string {
		files := maps.Clone(code)
		files[page] = "# A\n\n## Rooms\n\n| folder | imports | |\n|---|---|---|\n" + rooms + "\n## To change X, open Y\n\n| to change | open |\n|---|---|\n" + rest
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	const (
		head  = "| `.` | `cache`, `internal/x` | fob |\n| `cache` | nothing of ours | |\n| `httpauth` | `.` | |\n"
		sound = head + "| `internal/x` | `internal/tool/...` | |\n| `internal/tool/...` | nothing of ours | |\n"
		open  = "| keys | `a.go`, `internal/x` |\n"
	)
	return map[string]snippet{
		"no map":                  {"architecture", code, []string{"the page is missing"}},
		"a map without tables":    {"architecture", map[string]string{page: "## Rooms\n\n## To change X, open Y\n"}, []string{`"## Rooms" has no table`, `"## To change X, open Y" has no table`}},
		"a map that is right":     {"architecture", with(sound, open+"\nSee `net/http`, `Manager.Verify`, `a/b c` and `cache`.\n"), nil},
		"a folder without a row":  {"architecture", with(head+"| `internal/tool/...` | nothing of ours | |\n", open), []string{"the folder `internal/x` has production code", "does not import `internal/x`"}},
		"a row without a folder":  {"architecture", with(sound+"| `internal/z` | nothing of ours | |\n| `gone` | nothing of ours | |\n| `gone/...` | nothing of ours | |\n", open), []string{"no folder `internal/z`", "no folder `gone`", "no folder `gone/...`"}},
		"a row twice, and none":   {"architecture", with(sound+"| `cache` | nothing of ours | |\n| the cache | nothing of ours | |\n| `cache` |\n", open), []string{"line 8 already", "begins with one folder", "begins with one folder"}},
		"an import left out":      {"architecture", with(strings.Replace(sound, "`cache`, `internal/x`", "`cache`", 1), open), []string{"the code of `.` imports `internal/x`"}},
		"an import too many":      {"architecture", with(strings.Replace(sound, "| `cache` | nothing of ours", "| `cache` | `internal/x`", 1), open), []string{"does not import `internal/x`"}},
		"imports in other words":  {"architecture", with(strings.Replace(sound, "nothing of ours", "nothing", 1), open), []string{`write them as "nothing of ours"`}},
		"an arrow against layers": {"architecture", with(strings.Replace(sound, "| `cache` | nothing of ours", "| `cache` | `internal/x`", 1), open, "cache/a.go", `package cache; import _ "`+own+`/internal/x"`), []string{"do not let `cache` import `internal/x`"}},
		"files that are gone":     {"architecture", with(sound, open+"| tokens | `gone.go` |\n| import | nowhere |\n\nAs `docs/gone.md` and `internal/gone` and `internal/tool/...` say.\n"), []string{"there is no `gone.go`", "names no file in backticks", "there is no `docs/gone.md`", "there is no `internal/gone`"}},

		"a root of too many files":     {"root", root(lint.MaxRootFiles+1, lint.MaxRootFiles+1), []string{"production files, more than"}},
		"a root of too many lines":     {"root", root(1, lint.MaxRootLines+1), []string{"lines of production code, more than"}},
		"a root as large as it may be": {"root", root(lint.MaxRootFiles, lint.MaxRootLines), nil},
	}
}

// root is a root package of so many files, which have so many lines together.
func root(files, lines int) map[string]string {
	all := map[string]string{
		"a_test.go":  "package fob_test\n" + strings.Repeat("//\n", lines),
		"cache/a.go": "package cache\n" + strings.Repeat("//\n", lines),
	}
	for i := range files {
		all["a"+strconv.Itoa(i)+".go"] = "package fob\n"
	}
	all["a0.go"] += strings.Repeat("//\n", lines-files)
	return all
}

// TestRules shows that each rule finds violations, and finds nothing where there are none.
func TestRules(t *testing.T) {
	bitten := map[string]bool{}
	all := snippets()
	maps.Copy(all, architectureSnippets())
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			rule := lint.Rules()[s.rule]
			require.NotNil(t, rule, "no rule is called %q", s.rule)
			repo := fstest.MapFS{".gitignore": {Data: []byte("/.work/\n*.test\n")}}
			for file, text := range s.files {
				repo[file] = &fstest.MapFile{Data: []byte(text)}
			}
			tree, err := lint.Load(repo)
			require.NoError(t, err)
			got := tree.CheckRule(s.rule)
			require.Len(t, got, len(s.want), "problems found")
			for i, want := range s.want {
				require.Contains(t, got[i].String(), want)
			}
			bitten[s.rule] = bitten[s.rule] || len(got) > 0
		})
	}
	for name := range lint.Rules() {
		require.True(t, bitten[name], "no snippet shows that rule %q finds anything", name)
	}
}

// TestLoad reads what git would track, and nothing else.
func TestLoad(t *testing.T) {
	repo := fstest.MapFS{
		".gitignore":      {Data: []byte("/.work/\n*.test\n")},
		"a.go":            {Data: []byte("package a")},
		"a.test":          {Data: []byte("built")},
		".git/config":     {Data: []byte("x")},
		".work/b.go":      {Data: []byte("no Go at all")},
		"d/.work/c.go":    {Data: []byte("no Go at all")},
		"d/d.go":          {Data: []byte("package d")},
		"testdata/bad.go": {Data: []byte("no Go at all")},
		".ci/run":         {Data: []byte("x")},
	}
	tree, err := lint.Load(repo)
	require.NoError(t, err)
	for _, name := range []string{".gitignore", "a.go", "d/.work/c.go", "d/d.go", "testdata/bad.go", ".ci/run"} {
		require.Contains(t, tree.Files, name)
	}
	require.Len(t, tree.Files, 6)
	require.Len(t, tree.Go, 2)

	repo["broken.go"] = &fstest.MapFile{Data: []byte("package")}
	_, err = lint.Load(repo)
	require.ErrorContains(t, err, "parse broken.go")
}

func goFile(name, text string) map[string]string { return map[string]string{name: text} }

func command(name, line string) string {
	return "<!-- command: " + name + " -->\n" + fence + "sh\n" + line + "\n" + fence + "\n\n"
}
