// Command mutants is a mutation tester: it finds changes of the program that the tests do
// not notice. It changes one small place at a time (a boundary, an operator, a constant, a
// condition, a statement that is left out, a result that is not returned) and runs the
// tests that execute that place. A change that no test notices has survived.
//
//	go run ./tools/mutants                                   the packages that decide about credentials
//	go run ./tools/mutants ./cache .=verify.go,revoke.go      these packages and files
//	go run ./tools/mutants ./internal/engine@.               a package, by the tests of another one
//	go run ./tools/mutants -sample 20                        every twentieth mutant, always the same ones
//	go run ./tools/mutants -tests TestVerify .=verify.go     judged by these tests only
//
// It prints each survivor. It fails if fewer than -least percent of the mutants of a package
// were noticed; with -sample, which leaves few of each package, all packages are counted
// together. Only the package's own tests run, or those of the package whose folder stands
// after an @, because what a package under internal does for the root is tested there. They
// run with -short. A test that does not end, or that runs out of memory, counts as having
// noticed. A change that has no effect that could be observed is listed in equivalent.txt
// with the reason, and is not counted.
//
// All mutants of a package, except those of declared constants, are built into one test
// binary, and an environment variable chooses the mutant, so that a mutant needs no build of
// its own.
package main

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// deciding are the packages that decide about credentials. What the root's tests were written
// for is judged by them, wherever it stands.
var deciding = []string{
	"./internal/keytext", "./internal/claims", "./internal/paseto", "./internal/importedhash", "./cache", "./httpauth",
	"./internal/engine@.", "./internal/keystate@.", "./internal/rotation@.", "./internal/imported@.", "./internal/pepper@.",
	"./internal/marks@.", "./internal/family@.", "./internal/tokenring@.", "./internal/feed@.",
	".=verify.go,verify_key.go,verify_imported.go,verify_token.go,token_verifier.go,key_import.go,revoke.go,token_refresh.go,token_issue.go,token_ring.go,rights.go,target.go,session.go,credential.go,key.go,key_rotate.go,feed.go",
}

// verdict is the result of testing a mutant.
type verdict int

const (
	killed verdict = iota + 1
	survived
	unreached // no test executes the place
	broken    // it does not compile
)

type settings struct {
	root     string
	parallel int
	sample   uint64
	skip     string
	tests    string
	match    string
	again    map[string]bool // if not nil, only the mutants with these keys are tried
	verbose  bool
	listed   bool
	dry      bool
	allowed  allowed
	seen     map[string]verdict // if not nil, filled with the verdict on each mutant
}

func main() {
	var s settings
	flag.IntVar(&s.parallel, "p", runtime.GOMAXPROCS(0), "how many run at a time")
	flag.Uint64Var(&s.sample, "sample", 1, "try one in so many")
	flag.StringVar(&s.skip, "skip", "", "leave out the tests whose names match")
	flag.StringVar(&s.tests, "tests", "", "run only the tests whose names match")
	flag.StringVar(&s.match, "match", "", "try only those whose lines match")
	again := flag.String("again", "", "try only those that stand in this file, what an earlier run printed")
	flag.BoolVar(&s.verbose, "v", false, "print those that are noticed too")
	flag.BoolVar(&s.listed, "listed", false, "try those of equivalent.txt too, and fail if one is noticed")
	flag.BoolVar(&s.dry, "n", false, "print those that would be tried, and try none")
	least := flag.Float64("least", 95, "fail below this percentage")
	flag.Parse()
	if *again != "" {
		text, err := os.ReadFile(*again)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutants:", err)
			os.Exit(1)
		}
		s.again = map[string]bool{}
		for _, line := range strings.Split(string(text), "\n") {
			s.again[line] = true
		}
	}
	if err := run(s, *least, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(s settings, least float64, units []string) error {
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("find the root of the repository: %w", err)
	}
	s.root = strings.TrimSpace(string(out))
	if s.allowed, err = readAllowed(filepath.Join(s.root, "tools/mutants/equivalent.txt")); err != nil {
		return err
	}
	if len(units) == 0 {
		units = deciding
	}
	var table []string
	var wrong []error
	all := &result{name: "all", counts: map[verdict]int{}}
	for _, name := range units {
		dir, files, _ := strings.Cut(name, "=")
		var only []string
		if files != "" {
			only = strings.Split(files, ",")
		}
		dir, judge, _ := strings.Cut(dir, "@")
		r, err := s.one(filepath.ToSlash(filepath.Clean(dir)), judge, only)
		if err != nil {
			return err
		}
		table = append(table, r.row())
		all.add(r)
		wrong = append(wrong, r.wrong...)
		if s.sample <= 1 {
			wrong = append(wrong, r.enough(least))
		}
	}
	wrong, table = append(wrong, all.enough(least)), append(table, all.row())
	fmt.Printf("%-24s %8s %8s %8s %9s %10s %8s %8s\n%s", "package", "mutants", "killed", "survived", "unreached", "equivalent", "percent", "time", strings.Join(table, ""))
	return errors.Join(wrong...)
}

// result is what was found for the mutants of one package.
type result struct {
	name   string
	counts map[verdict]int
	listed int
	took   time.Duration
	wrong  []error // errors in the list of equivalent mutants
}

func (r *result) percent() float64 {
	all := r.counts[killed] + r.counts[survived] + r.counts[unreached]
	if all == 0 {
		return 100
	}
	return 100 * float64(r.counts[killed]) / float64(all)
}

// enough returns an error if fewer than least percent of the mutants were noticed.
func (r *result) enough(least float64) error {
	if r.percent() >= least {
		return nil
	}
	return fmt.Errorf("%s: %.1f %% noticed, want %g %%", r.name, r.percent(), least)
}

func (r *result) add(other *result) {
	for v, n := range other.counts {
		r.counts[v] += n
	}
	r.listed, r.took = r.listed+other.listed, r.took+other.took
}

func (r *result) row() string {
	all := r.counts[killed] + r.counts[survived] + r.counts[unreached] + r.listed
	return fmt.Sprintf("%-24s %8d %8d %8d %9d %10d %7.1f%% %8s\n", r.name, all, r.counts[killed], r.counts[survived],
		r.counts[unreached], r.listed, r.percent(), r.took.Round(time.Second))
}

// drawn reports whether a mutant belongs to the sample.
func (s *settings) drawn(m *mutant) bool {
	if s.again != nil && !s.again[m.key] || s.match != "" && !regexp.MustCompile(s.match).MatchString(m.key) {
		return false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.key)) // a hash never returns an error
	return h.Sum64()%max(1, s.sample) == 0
}

// one tries the mutants of the package in a folder, in the files of only or in all, by the
// tests of the package in the folder judge, or its own.
func (s *settings) one(rel, judge string, only []string) (*result, error) {
	began := time.Now()
	r := &result{name: rel, counts: map[verdict]int{}}
	u, err := load(s.root, rel, only)
	if err != nil {
		return nil, err
	}
	p, err := instrument(u)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, m := range slices.Concat(p.mutants(), p.alone) {
		known[m.key] = true
		if s.dry && s.drawn(m) {
			fmt.Println(m.key)
		}
	}
	if r.wrong = s.stale(u, known); s.dry {
		return r, nil
	}
	scratch, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(scratch) }() // a temporary folder
	b := &bench{u: u, dir: u.dir, scratch: scratch, parallel: s.parallel, skip: s.skip, only: s.tests}
	if judge != "" {
		b.dir = filepath.Join(s.root, judge)
	}
	replace, err := p.overlay(scratch)
	if err != nil {
		return nil, err
	}
	bin, err := b.build("all", replace)
	if err != nil {
		return nil, err
	}
	fmt.Printf("== %s: built\n", rel)
	if err := b.trace(bin); err != nil {
		return nil, err
	}
	fmt.Printf("== %s: %d tests, traced after %s\n", rel, len(b.tests), time.Since(began).Round(time.Second))
	var todo []*mutant
	choose := func(all []*mutant) {
		for _, m := range all {
			if s.allowed[m.key] != "" && !s.listed {
				r.listed++
			} else if s.drawn(m) {
				todo = append(todo, m)
			}
		}
	}
	choose(p.mutants())
	together := len(todo)
	choose(p.alone)
	var mu sync.Mutex
	err = each(s.parallel, todo, func(m *mutant) error {
		judge := func() (verdict, error) { return b.judge(bin, m.id) }
		if slices.Index(todo, m) >= together {
			judge = func() (verdict, error) { return b.alone(m) }
		}
		v, err := judge()
		mu.Lock()
		defer mu.Unlock()
		r.note(s, m, v)
		return err
	})
	r.took = time.Since(began)
	return r, err
}

func (r *result) note(s *settings, m *mutant, v verdict) {
	if s.allowed[m.key] != "" && v != broken {
		r.listed++
		if v == killed {
			r.wrong = append(r.wrong, fmt.Errorf("equivalent.txt: a test notices %s", m.key))
		}
		return
	}
	r.counts[v]++
	if s.seen != nil {
		s.seen[m.key] = v
	}
	switch word := map[verdict]string{killed: "killed", survived: "SURVIVED", unreached: "UNREACHED"}[v]; {
	case v == survived, v == unreached, s.verbose && v == killed:
		fmt.Printf("%-9s line %d\n%s\n", word, m.line, m.key)
	}
}

// stale returns the entries of the list that name a mutant which no longer exists.
func (s *settings) stale(u *unit, known map[string]bool) (wrong []error) {
	for _, src := range u.sources {
		if !src.at {
			continue
		}
		for key := range s.allowed {
			if strings.HasPrefix(key, src.name+" ") && !known[key] {
				wrong = append(wrong, fmt.Errorf("equivalent.txt: there is no such mutant any more: %s", key))
			}
		}
	}
	return wrong
}
