package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// test is one test of a unit.
type test struct {
	name    string
	took    time.Duration // by the clock
	work    time.Duration // processor time, which says more on a busy machine
	reaches map[int]bool
}

// bench runs the tests of a unit.
type bench struct {
	u        *unit
	dir      string // of the package whose tests judge
	scratch  string
	parallel int
	skip     string
	only     string  // the pattern that their names must match; they must not match skip
	tests    []*test // quickest first
}

// The limits for a test of a mutant, which may never end: ten times the processor time that
// the test takes on the unchanged program, four times its time, a little more of both, and
// this much memory.
const (
	patience = 20 * time.Second
	memory   = 16 << 20 // KiB of address space
)

// build builds a test binary with other sources instead of the unit's.
func (b *bench) build(name string, replace map[string]string) (string, error) {
	bin, overlay := filepath.Join(b.scratch, name), filepath.Join(b.scratch, name+".json")
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, ".")
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w\n%s", b.u.path, err, out)
	}
	return bin, nil
}

// run runs tests of a binary, and returns whether they passed and how much processor time
// they took. takes and works are the time and the processor time that they need when they
// pass.
func (b *bench) run(bin string, names []string, takes, works time.Duration, env ...string) (bool, time.Duration, []byte, error) {
	tmp, err := os.MkdirTemp(b.scratch, "tmp")
	if err != nil {
		return false, 0, nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what remains is removed together with scratch
	limit, processor := patience+4*takes, 5+int(10*works/time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), limit+patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`ulimit -v %d; ulimit -t %d; exec "$0" "$@"`, memory, processor), bin,
		"-test.short", "-test.failfast", "-test.timeout", limit.String(), "-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir, cmd.Env, cmd.WaitDelay = b.dir, append(os.Environ(), append(env, "TMPDIR="+tmp)...), patience
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return true, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), out, nil
	case errors.As(err, &failed), errors.Is(err, exec.ErrWaitDelay), ctx.Err() != nil:
		return false, 0, out, nil
	}
	return false, 0, out, fmt.Errorf("run the tests of %s: %w", b.u.path, err)
}

// trace runs each test alone on the unchanged program, and records how long it takes and
// the places of which mutants it executes. A test that fails here, as one that counts
// allocations may, cannot be used to judge mutants.
func (b *bench) trace(bin string) error {
	cmd := exec.Command(bin, "-test.list", ".")
	cmd.Dir = b.dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the tests of %s: %w", b.u.path, err)
	}
	var mu sync.Mutex
	err = each(b.parallel, strings.Fields(string(out)), func(name string) error {
		if strings.HasPrefix(name, "Benchmark") || !regexp.MustCompile(b.only).MatchString(name) || b.skip != "" && regexp.MustCompile(b.skip).MatchString(name) {
			return nil
		}
		t := &test{name: name, reaches: map[int]bool{}}
		reached, err := os.CreateTemp(b.scratch, "trace")
		if err != nil {
			return err
		}
		if err := reached.Close(); err != nil {
			return err
		}
		began := time.Now()
		ok, work, out, err := b.run(bin, []string{name}, 10*time.Minute, 10*time.Minute, "MUTANT_TRACE="+reached.Name())
		if err != nil {
			return err
		}
		t.took, t.work = time.Since(began), work
		if !ok {
			fmt.Printf("  left out, because it fails on the program with all mutants, none of which is chosen: %s\n%s", name, bytes.TrimSpace(out[:min(len(out), 2000)]))
			fmt.Println()
			return nil
		}
		text, err := os.ReadFile(reached.Name())
		if err != nil {
			return err
		}
		for _, line := range strings.Fields(string(text)) {
			id, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("trace of %s: %w", name, err)
			}
			t.reaches[id] = true
		}
		mu.Lock()
		defer mu.Unlock()
		b.tests = append(b.tests, t)
		return nil
	})
	slices.SortFunc(b.tests, func(x, y *test) int { return cmp.Or(cmp.Compare(x.work, y.work), cmp.Compare(x.name, y.name)) })
	return err
}

// quick is the processor time, in total, of the tests that are tried first.
const quick = 300 * time.Millisecond

// judge runs the tests that execute the place of a mutant, or all tests if its id is 0,
// until one fails.
func (b *bench) judge(bin string, id int) (verdict, error) {
	var first, rest []string
	var takes, works, firstTakes, firstWorks time.Duration
	for _, t := range b.tests {
		if id != 0 && !t.reaches[id] {
			continue
		}
		takes, works = takes+t.took, works+t.work
		if len(first) == 0 || works <= quick {
			first, firstTakes, firstWorks = append(first, t.name), takes, works
		} else {
			rest = append(rest, t.name)
		}
	}
	if len(first) == 0 {
		return unreached, nil
	}
	for _, names := range [][]string{first, rest} {
		if len(names) == 0 {
			continue
		}
		passed, _, _, err := b.run(bin, names, firstTakes, firstWorks, "MUTANT="+strconv.Itoa(id))
		if err != nil {
			return 0, err
		}
		if !passed {
			return killed, nil
		}
		firstTakes, firstWorks = takes, works
	}
	return survived, nil
}

// alone builds the unit with one mutant only, and judges that.
func (b *bench) alone(m *mutant) (verdict, error) {
	s := b.u.sources[m.source]
	text := slices.Concat(s.text[:m.from], []byte(m.text), s.text[m.to:])
	var texts [][]byte
	for i, s := range b.u.sources {
		if i == m.source {
			texts = append(texts, text)
			continue
		}
		texts = append(texts, s.text)
	}
	if p, err := b.u.check(texts); err != nil || len(p.wrong) > 0 {
		return broken, err
	}
	name := fmt.Sprintf("alone%d", m.id)
	file := filepath.Join(b.scratch, name+".go")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return 0, err
	}
	bin, err := b.build(name, map[string]string{s.file: file})
	if err != nil {
		return broken, nil // its tests do not compile with it, so they have noticed
	}
	defer func() { _ = os.Remove(bin) }() // it is removed together with scratch
	return b.judge(bin, 0)
}

// each calls do for every item, several at a time, until one call fails.
func each[T any](parallel int, items []T, do func(T) error) error {
	var wg sync.WaitGroup
	todo, failed := make(chan T), make(chan error, parallel)
	for range parallel {
		wg.Go(func() {
			for item := range todo {
				if err := do(item); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for _, item := range items {
		select {
		case todo <- item:
		case err = <-failed:
		}
		if err != nil {
			break
		}
	}
	close(todo)
	wg.Wait()
	select {
	case late := <-failed:
		err = cmp.Or(err, late)
	default:
	}
	return err
}
