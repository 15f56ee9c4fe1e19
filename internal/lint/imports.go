package lint

import (
	"path"
	"slices"
	"strings"
)

// layer says what production code in one folder, and below it, may import.
type layer struct {
	dir    string   // folder; the longest that matches counts
	own    []string // folders of ours, with what is below them where they end in "/..."
	others []string // import paths outside the standard library, with what is below them
}

const (
	libBadger   = "github.com/dgraph-io/badger/v4"
	libLRU      = "github.com/hashicorp/golang-lru/v2"
	libO1egl    = "github.com/o1egl/paseto/v2"
	libAidan    = "aidanwoods.dev/go-paseto"
	libO1eglOld = "github.com/o1egl/paseto"
	libPgx      = "github.com/jackc/pgx/v5"
	libEtcd     = "go.etcd.io/etcd"
)

// layers says which folder may import which. It keeps secrets out of the stores, and allows
// cryptography in few packages only. A folder that no line covers may not exist: who adds a
// folder adds a line and so decides what it may import.
var layers = []layer{
	{".", []string{"backend", "backend/memory", "cache", "internal/..."}, []string{"golang.org/x/sync", "golang.org/x/time", "golang.org/x/crypto"}},
	{"backend", nil, nil},
	{"backend/memory", []string{"backend"}, nil},
	{"backend/badger", []string{"backend", "backend/internal/..."}, []string{libBadger, "golang.org/x/crypto", "golang.org/x/sys"}},
	{"backend/postgres", []string{"backend", "backend/internal/..."}, []string{libPgx}},
	// google.golang.org/grpc is needed because errors of the client can be gRPC statuses.
	{"backend/etcd", []string{"backend", "backend/internal/..."}, []string{libEtcd, "google.golang.org/grpc"}},
	// It runs servers for tests. It is a module of its own, so that it is in no user's build.
	{"backend/etcd/etcdtest", []string{"internal/port"}, []string{libEtcd, "go.uber.org/zap"}},
	{"backend/sqlite", []string{"backend", "backend/internal/..."}, []string{"modernc.org/sqlite"}},
	{"backend/internal", []string{"backend"}, nil},
	{"backend/backendtest", []string{"backend", "backend/memory"}, []string{"github.com/stretchr/testify"}},
	{"cache", nil, []string{libLRU}},
	{"internal", []string{"backend", "cache", "internal/..."}, []string{"golang.org/x/crypto", "golang.org/x/sync"}},
	// Its program opens the stores as an application does.
	{"internal/fleettest/rolling", []string{".", "backend/..."}, []string{libPgx, libEtcd}},
	{"internal/paseto", []string{"internal/..."}, []string{libO1egl, libAidan, "golang.org/x/crypto", "filippo.io/edwards25519"}},
	{"httpauth", []string{".", "internal/errs"}, nil},
	{"docs/guides", nil, nil}, // the programs of the guides are tests
	{"oauth", []string{"."}, nil},
	{"fobtest", []string{".", "backend", "backend/memory"}, []string{"github.com/stretchr/testify"}},
	{"cmd", []string{".", "backend/...", "httpauth", "oauth"}, []string{"golang.org/x", libPgx}},
	{"examples", []string{".", "backend/...", "httpauth", "oauth", "fobtest"}, nil},
	// It is a module of its own because it opens the clients that the stores use.
	{"examples/cluster", []string{".", "backend/..."}, []string{libPgx, libEtcd}},
	// A module of its own, too; it checks passwords.
	{"examples/saas", []string{".", "backend/...", "httpauth"}, []string{libPgx, "golang.org/x/crypto"}},
	{"bench", []string{".", "backend/...", "cache", "httpauth", "oauth", "fobtest", "internal/..."}, []string{libBadger, libLRU, "golang.org/x"}},
	// It measures other libraries and may import any. It is a module of its own, so that
	// they are in no user's build.
	{"bench/peers", []string{".", "backend/...", "cache"}, []string{""}},
	// It runs go test and draws charts. It is a module of its own too.
	{"bench/report", nil, []string{"golang.org/x/image", "golang.org/x/perf", "gonum.org/v1/plot"}},
	{"tools", nil, []string{"golang.org/x/mod"}},
}

// imports checks the layers. Tests may import anything, because they are in no user's binary.
func imports(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		l, ok := layerOf(f.Dir)
		if !ok {
			all = append(all, f.problem(f.AST.Name, "folder %s has no line in layers (internal/lint/imports.go): add one that says what it may import", f.Dir))
			continue
		}
		for _, s := range f.AST.Imports {
			at := importPath(s)
			switch dir, ours := ownFolder(at); {
			case ours && l.admits(dir):
			case ours:
				all = append(all, f.problem(s, "%s may not import %s: it may import %s of ours; move what is shared down, or change the drawing in internal/lint/imports.go and say why under docs/decisions", f.Dir, at, listed(l.own)))
			case !strings.Contains(firstPart(at), "."): // standard library
			case !slices.ContainsFunc(l.others, func(o string) bool { return o == "" || under(at, o) }):
				all = append(all, f.problem(s, "%s may not import %s: of other people's modules it may import %s; use the standard library, or add the module to the layer in internal/lint/imports.go", f.Dir, at, listed(l.others)))
			}
		}
	}
	return all
}

// admits reports whether code of this layer may import a folder of ours. Folders of one
// layer may import each other, but not where the layer is a single package.
func (l layer) admits(dir string) bool {
	return !l.single() && under(dir, l.dir) || allowedFolder(l.own, dir)
}

// single reports whether a layer is one package only. What lies below the root and below
// the contract has layers of its own.
func (l layer) single() bool { return l.dir == "." || l.dir == "backend" }

// layerOf returns the layer of a folder: the one with the longest name that is the folder
// or lies above it.
func layerOf(dir string) (layer, bool) {
	best, found := layer{}, false
	for _, l := range layers {
		if (dir == l.dir || !l.single() && under(dir, l.dir)) && (!found || len(l.dir) > len(best.dir)) {
			best, found = l, true
		}
	}
	return best, found
}

// ownFolder is the folder of a package of this repository.
func ownFolder(at string) (dir string, ours bool) {
	if at == Module {
		return ".", true
	}
	return strings.CutPrefix(at, Module+"/")
}

func allowedFolder(allowed []string, dir string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		if folder, ok := strings.CutSuffix(a, "/..."); ok {
			return under(dir, folder)
		}
		return a == dir
	})
}

func firstPart(at string) string {
	first, _, _ := strings.Cut(at, "/")
	return first
}

func listed(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// testHelpers are the folders whose only users are tests.
var testHelpers = []string{"backend/backendtest", "fobtest", "internal/await"}

// testingOnly forbids imports of testing, testify and test helpers in production code, so that
// they are in no user's binary.
func testingOnly(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Test || slices.ContainsFunc(testHelpers, func(h string) bool { return under(f.Dir, h) }) {
			continue
		}
		for _, s := range f.AST.Imports {
			at := importPath(s)
			own, _ := ownFolder(at)
			if under(at, "testing") || under(at, "github.com/stretchr/testify") || own == "backend/backendtest" || own == "internal/await" {
				all = append(all, f.problem(s, "%s is imported outside tests and would reach users' binaries: move this code into a _test.go file", at))
			}
		}
	}
	return all
}

// randAllowed are folders that need pseudo-random numbers which can be repeated.
var randAllowed = map[string]string{
	"backend/backendtest": "the model group replays random operation lists from a printed seed",
	"bench":               "benchmarks draw keys in an order that is the same in each run",
}

// noMathRand forbids predictable random numbers in production code.
func noMathRand(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Test || allowedBelow(randAllowed, f.Dir) {
			continue
		}
		for _, s := range f.AST.Imports {
			if at := importPath(s); under(at, "math/rand") {
				all = append(all, f.problem(s, "%s is predictable: use crypto/rand; jitter too can come from it", at))
			}
		}
	}
	return all
}

// allowedBelow reports whether an allow-list names dir or a folder above it.
func allowedBelow(list map[string]string, dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if list[dir] != "" {
			return true
		}
	}
	return false
}
