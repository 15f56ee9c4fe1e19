package weight_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	bytes  = flag.Bool("bytes", false, "build the programs too, and compare their sizes")
	update = flag.Bool("update", false, "write what is measured to docs/dependencies.md; the sizes only with -bytes")
)

// tolerance is by how much the size of a program may differ from the table. Releases of Go
// change it by some hundredths.
const tolerance = 0.05

// consumer is a program that uses a part of this repository.
type consumer struct {
	name    string
	modules []string // modules that are required besides the root
	imports []string // packages that are imported, as paths below the root
	body    string
	dir     string // if set, a program of this repository that is measured instead
}

const verify = `
	m, err := fob.New(store, fob.Config{Prefix: "acme_live", Tokens: &fob.TokenConfig{}})
	if err != nil {
		panic(err)
	}
	secret, _, err := m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-1")})
	fmt.Println(secret, err)
	fmt.Println(m.Verify(ctx, secret.Reveal()))
	fmt.Println(m.IssueToken(ctx, fob.TokenSpec{Subject: fob.App("app-1")}))
	fmt.Println(m.Close())
`

var consumers = []consumer{
	{name: "root, `backend/memory`", imports: []string{"", "backend/memory"}, body: "store := memory.New()" + verify},
	{name: "the same, and `httpauth`", imports: []string{"", "backend/memory", "httpauth"},
		body: "store := memory.New()\nfmt.Println(httpauth.NewKeyClient(os.Args[1], nil))" + verify},
	{name: "root, `backend/badger`", imports: []string{"", "backend/badger"}, body: "store, err := badger.Open(os.Args[1], badger.Options{})" + verify},
	{name: "root, `backend/sqlite`", modules: []string{"backend/sqlite"}, imports: []string{"", "backend/sqlite"},
		body: "store, err := sqlite.Open(os.Args[1], sqlite.Options{})" + verify},
	{name: "root, `backend/postgres`", modules: []string{"backend/postgres"}, imports: []string{"", "backend/postgres", "github.com/jackc/pgx/v5/pgxpool"},
		body: "pool, err := pgxpool.New(ctx, os.Args[1])\nfmt.Println(err)\nstore, err := postgres.New(ctx, pool, postgres.Options{})" + verify},
	{name: "root, `backend/etcd`", modules: []string{"backend/etcd"}, imports: []string{"", "backend/etcd", "go.etcd.io/etcd/client/v3"},
		body: "client, err := clientv3.New(clientv3.Config{})\nfmt.Println(err)\nstore, err := etcd.New(client, etcd.Options{})" + verify},
	{name: "the program `cmd/fob`", dir: "cmd/fob"},
}

// weight is what was measured of one program.
type weight struct{ modules, sums, bytes int }

// goCommand runs the go command for one fixed platform. It downloads nothing.
func goCommand(mode, dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod="+mode, "GOPROXY=off", "GOSUMDB=off", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// prepare writes the consumer's module and returns its folder.
func (c consumer) prepare(t *testing.T, root, module string) string {
	t.Helper()
	dir := t.TempDir()
	mod := "module example.com/app\n\ngo 1.26.0\n"
	for _, m := range append([]string{""}, c.modules...) {
		path := strings.TrimSuffix(module+"/"+m, "/")
		mod += fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", path, filepath.Join(root, m))
	}
	imports := []string{`"context"`, `"fmt"`, `"os"`}
	for _, i := range c.imports {
		if !strings.Contains(i, ".") {
			i = strings.TrimSuffix(module+"/"+i, "/")
		}
		imports = append(imports, strconv.Quote(i))
	}
	main := "package main\n\nimport (\n" + strings.Join(imports, "\n") + "\n)\n\nfunc main() {\nctx := context.Background()\nfmt.Println(os.Args)\n" + c.body + "}\n"
	for name, text := range map[string]string{"go.mod": mod, "main.go": main, "go.sum": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (c consumer) measure(t *testing.T, root, module string) (w weight) {
	t.Helper()
	mode, dir := "readonly", filepath.Join(root, c.dir)
	if c.dir == "" { // the go command completes its go.mod and go.sum
		mode, dir = "mod", c.prepare(t, root, module)
	}
	listed, err := goCommand(mode, dir, "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", ".")
	if err != nil {
		t.Fatal(err)
	}
	modules := strings.Fields(listed)
	slices.Sort(modules)
	for _, path := range slices.Compact(modules) {
		if path != module && !strings.HasPrefix(path, module+"/") {
			w.modules++
		}
	}
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	w.sums = strings.Count(string(sums), "\n")
	if *bytes {
		program := filepath.Join(t.TempDir(), "program")
		if _, err := goCommand(mode, dir, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "."); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		w.bytes = int(info.Size())
	}
	return w
}

const (
	begin = "<!-- begin weights -->\n"
	end   = "<!-- end weights -->\n"
	head  = "| a program that uses | modules of others compiled | lines of go.sum | bytes |\n|---|---|---|---|\n"
)

// TestTheTableOfWeights compares docs/dependencies.md with measurements, so that nobody adds
// a module to the builds of users without noticing.
func TestTheTableOfWeights(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	module, err := goCommand("readonly", root, "list", "-m")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(root, "docs", "dependencies.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("docs/dependencies.md has no marks for the table")
	}
	told := map[string]weight{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			continue
		}
		var w weight
		for i, n := range []*int{&w.modules, &w.sums, &w.bytes} {
			*n, _ = strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(cells[i+2]), ",", "")) // the header has no numbers
		}
		told[strings.TrimSpace(cells[1])] = w
	}
	written := head
	for _, c := range consumers {
		w, told := c.measure(t, root, module), told[c.name]
		if !*bytes {
			w.bytes = told.bytes
		}
		written += fmt.Sprintf("| %s | %d | %d | %s |\n", c.name, w.modules, w.sums, grouped(w.bytes))
		if *update {
			continue
		}
		if w.modules != told.modules || w.sums != told.sums {
			t.Errorf("%s: %d modules and %d lines of go.sum, docs/dependencies.md says %d and %d: if that is meant, go test ./tools/weight -bytes -update",
				c.name, w.modules, w.sums, told.modules, told.sums)
		}
		if off := math.Abs(float64(w.bytes)/float64(told.bytes) - 1); *bytes && !(off <= tolerance) {
			t.Errorf("%s: %d bytes, docs/dependencies.md says %d", c.name, w.bytes, told.bytes)
		}
	}
	if !*update {
		return
	}
	if err := os.WriteFile(page, []byte(before+begin+written+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// grouped writes a number with a comma before each three digits.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
