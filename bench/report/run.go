package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set is a group of benchmarks that are run by one command.
type set struct {
	name, pkg, bench string
	scaling          bool // run with several numbers of processors
	once             bool // one run is long enough, and many would take an hour
}

var sets = []set{
	{name: "floor", pkg: "./bench", bench: "^Benchmark(Floor|TokenFloor)$"},
	{name: "keys", pkg: "./bench", bench: "^BenchmarkVerify"},
	{name: "tokens", pkg: "./bench", bench: "^BenchmarkToken$"},
	{name: "scaling", pkg: "./bench", bench: "^BenchmarkScaling$", scaling: true},
	{name: "flood", pkg: "./bench", bench: "^BenchmarkFlood$"},
	{name: "durable", pkg: "./bench", bench: "^Benchmark(Issue|Revoke)Durable$"},
	{name: "peers", pkg: "./bench/peers", bench: "."},
	{name: "cache", pkg: "./cache", bench: "."},
	{name: "parent", pkg: "./bench", bench: "^BenchmarkRevokeParent$", once: true},
	{name: "growth", pkg: "./bench", bench: "^BenchmarkGrowth$"},
	{name: "crowd", pkg: "./internal/fleettest", bench: "^BenchmarkCrowd$", once: true},
	{name: "million", pkg: "./bench", bench: "^BenchmarkMillion", once: true},
}

func setNames() []string {
	var names []string
	for _, s := range sets {
		names = append(names, s.name)
	}
	return names
}

func chosen(names string) ([]set, error) {
	var out []set
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(sets, func(s set) bool { return s.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no set %q; there are: %s", name, strings.Join(setNames(), ", "))
		}
		out = append(out, sets[i])
	}
	return out, nil
}

// processors is what the set scaling runs with by default.
func processors(have int) string {
	var list []string
	for n := 1; n <= min(have, 16); n *= 2 {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}

func (s set) args(o options) []string {
	args := []string{"test", "-run", "^$", "-bench", s.bench, "-benchmem", "-timeout", "60m"}
	if s.once {
		args = append(args, "-count", "1")
	} else {
		args = append(args, "-count", strconv.Itoa(o.count), "-benchtime", o.benchtime)
	}
	if s.scaling {
		cpu := o.cpu
		if cpu == "" {
			cpu = processors(runtime.NumCPU())
		}
		args = append(args, "-cpu", cpu)
	}
	return append(args, s.pkg)
}

// runSets runs the chosen sets one after the other and saves what they print. A
// benchmark that fails ends it.
func runSets(ctx context.Context, o options, to string, progress io.Writer) (err error) {
	all, err := chosen(o.sets)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, line := range header(ctx) {
		if _, err := fmt.Fprintln(f, line); err != nil {
			return err
		}
	}
	begun := time.Now()
	for i, s := range all {
		args := s.args(o)
		if _, err := fmt.Fprintf(f, "command: go %s\n", quoted(args)); err != nil {
			return err
		}
		if err := run(ctx, args, f, func(lines int, last string) {
			_, _ = fmt.Fprintf(progress, "[%d/%d %s, %v] %d lines, %s\n", i+1, len(all), s.name, time.Since(begun).Round(time.Second), lines, last)
		}); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	return nil
}

func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, "^$().|") && !strings.HasPrefix(a, "./") {
			out[i] = "'" + a + "'"
		}
	}
	return strings.Join(out, " ")
}

// header is the configuration that go test does not print.
func header(ctx context.Context) []string {
	lines := []string{"go: " + runtime.Version(), "procs: " + strconv.Itoa(runtime.NumCPU()), "date: " + today()}
	if commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude", "*").Output(); err == nil {
		lines = append(lines, "commit: "+strings.TrimSpace(string(commit)))
	}
	return lines
}

// run runs one go command, copies its output, and tells of each benchmark's line.
func run(ctx context.Context, args []string, to io.Writer, tell func(lines int, last string)) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var failed []string
	lines := 0
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		if strings.HasPrefix(line, "Benchmark") && strings.Contains(line, "/op") {
			lines++
			tell(lines, strings.Fields(line)[0])
		} else if !strings.Contains(line, ": ") || strings.Contains(line, "_test.go:") {
			failed = append(failed, line)
		}
		if _, err := fmt.Fprintln(to, line); err != nil {
			return errors.Join(err, cmd.Wait())
		}
	}
	if err := errors.Join(scan.Err(), cmd.Wait()); err != nil {
		return fmt.Errorf("%w\n%s%s", err, strings.Join(failed, "\n"), stderr.String())
	}
	return nil
}
