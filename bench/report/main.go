// Command report runs fob's benchmarks and shows what came of them: a table of
// medians and ratios, a page of HTML that needs nothing else, and charts as SVG and
// PNG.
//
//	go run ./bench/report                       # from the root of the repository
//	go run ./bench/report -set keys,scaling -count 3
//	go run ./bench/report -from bench/out/bench.txt -docs docs/benchmarks.md -images docs/images
//	go run ./bench/report -from docs/images/bench.txt -images docs/images   # draws the charts again
//	go run ./bench/report -set growth,crowd -o bench/out                    # what docs/scaling.md shows
//	go run ./bench/report -from docs/images/growth.txt -docs docs/scaling.md -images docs/images
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

type options struct {
	sets, cpu, out, from, docs, images string
	count                              int
	benchtime                          string
}

func main() {
	var o options
	flag.StringVar(&o.sets, "set", "floor,keys,tokens,scaling,flood,durable,peers", "sets to run: "+strings.Join(setNames(), ", "))
	flag.IntVar(&o.count, "count", 5, "runs of each benchmark; medians are shown")
	flag.StringVar(&o.benchtime, "benchtime", "200ms", "time of one run")
	flag.StringVar(&o.cpu, "cpu", "", "processors for the set scaling, as in 1,2,4 (default: powers of two that this machine has, up to 16)")
	flag.StringVar(&o.out, "o", filepath.Join("bench", "out"), "folder for what is written")
	flag.StringVar(&o.from, "from", "", "show this output of go test -bench instead of running")
	flag.StringVar(&o.docs, "docs", "", "Markdown page to refresh between its marks")
	flag.StringVar(&o.images, "images", "", "folder for the charts, as SVG, and what they are drawn from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := report(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// report runs, or reads, and writes everything.
func report(ctx context.Context, o options, stdout, progress io.Writer) error {
	if o.count < 1 {
		return fmt.Errorf("-count %d, want at least 1", o.count)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	raw := filepath.Join(o.out, "bench.txt")
	if o.from != "" {
		raw = o.from
	} else if err := runSets(ctx, o, raw, progress); err != nil {
		return err
	}
	f, err := os.Open(raw)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	figures, err := parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(raw), err)
	}
	table := figures.table()
	if err := table.print(stdout); err != nil {
		return err
	}
	charts, err := figures.charts()
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range charts {
		errs = append(errs, c.write(o.out))
	}
	errs = append(errs, writePage(filepath.Join(o.out, "index.html"), figures, table, charts))
	if o.images != "" {
		errs = append(errs, keep(o.images, raw, charts))
	}
	if o.docs != "" {
		errs = append(errs, refresh(o.docs, o.images, figures, table, charts))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = fmt.Fprintf(progress, "written: %s and %d charts\n", filepath.Join(o.out, "index.html"), len(charts))
	return err
}

// keep writes the charts and what they were drawn from, under its own name, so that they
// can be drawn again without measuring again.
func keep(dir, raw string, charts []*chart) error {
	text, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, c := range charts {
		errs = append(errs, os.WriteFile(filepath.Join(dir, c.name+".svg"), c.svg, 0o644))
	}
	errs = append(errs, os.WriteFile(filepath.Join(dir, filepath.Base(raw)), text, 0o644))
	return errors.Join(errs...)
}

// today is the date that reports carry.
func today() string { return time.Now().UTC().Format(time.DateOnly) }
