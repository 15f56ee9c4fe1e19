package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
)

// figure is one benchmark: the medians of what its runs measured.
type figure struct {
	name   string // without "Benchmark" and the number of processors
	procs  int
	runs   int
	values map[string]float64 // by unit
	least  float64            // of ns/op
	most   float64
	all    map[string][]float64
}

func (f *figure) ns() float64 { return f.values["ns/op"] }

// figures is a whole run.
type figures struct {
	all      []*figure // in the order in which they came
	config   map[string]string
	commands []string
}

var errNothing = errors.New("no benchmark in it")

// parse reads the output of go test -bench. Text that is no result is passed over
// as go test prints other things too; a line that begins as a result and is none is an error.
func parse(r io.Reader) (*figures, error) {
	out := &figures{config: map[string]string{}}
	byName := map[string]*figure{}
	reader := benchfmt.NewReader(r, "bench")
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, fmt.Errorf("line %d: %s", rec.Line, rec.Msg)
		case *benchfmt.Result:
			for _, c := range rec.Config {
				value := string(c.Value)
				if c.Key == "command" && !slices.Contains(out.commands, value) {
					out.commands = append(out.commands, value)
				}
				if c.Key != "pkg" && c.Key != "command" {
					out.config[c.Key] = value
				}
			}
			full, procs := string(rec.Name), 1
			if i := strings.LastIndexByte(full, '-'); i > 0 {
				if n, err := strconv.Atoi(full[i+1:]); err == nil {
					full, procs = full[:i], n
				}
			}
			key := full + "-" + strconv.Itoa(procs)
			f := byName[key]
			if f == nil {
				f = &figure{name: full, procs: procs, all: map[string][]float64{}}
				byName[key] = f
				out.all = append(out.all, f)
			}
			f.runs++
			for _, v := range rec.Values {
				unit, value := v.Unit, v.Value
				if v.OrigUnit != "" {
					unit, value = v.OrigUnit, v.OrigValue
				}
				f.all[unit] = append(f.all[unit], value)
			}
		}
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	if len(out.all) == 0 {
		return nil, errNothing
	}
	for _, f := range out.all {
		f.values = map[string]float64{}
		for unit, values := range f.all {
			slices.Sort(values)
			f.values[unit] = median(values)
		}
		if ns := f.all["ns/op"]; len(ns) > 0 {
			f.least, f.most = ns[0], ns[len(ns)-1]
		}
	}
	return out, nil
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// find returns a benchmark by its name, with the most processors that it ran on.
func (fs *figures) find(name string) *figure {
	var best *figure
	for _, f := range fs.all {
		if f.name == name && (best == nil || f.procs > best.procs) {
			best = f
		}
	}
	return best
}

func (fs *figures) at(name string, procs int) *figure {
	for _, f := range fs.all {
		if f.name == name && f.procs == procs {
			return f
		}
	}
	return nil
}

// comparisons say what a benchmark is held against: the first whose pattern fits.
var comparisons = []struct{ prefix, suffix, floor string }{
	{"VerifyMalformed/", "", "Floor/sha256_block"},
	{"VerifyUncachedMemory/", "", "Floor/sha256_block"},
	{"VerifyUncachedBadger/verify", "", "VerifyUncachedBadger/bare_read"},
	{"VerifyCached/", "", "Floor/sha256_block_and_map"},
	{"VerifyUnknown/", "", "Floor/sha256_block_and_map"},
	{"Token/", "/cached", "@/floor_hash_and_map"},
	{"Token/v4.public/cold", "", "TokenFloor/ed25519"},
	{"Token/v4.local/cold", "", "TokenFloor/go-paseto/v4.local"},
}

// against is what a benchmark is held against, or nil, and in which words.
func (fs *figures) against(f *figure) (*figure, string) {
	parts := strings.Split(f.name, "/")
	for _, c := range comparisons {
		if !strings.HasPrefix(f.name, c.prefix) || !strings.HasSuffix(f.name, c.suffix) {
			continue
		}
		name := strings.Replace(c.floor, "@", strings.Join(parts[:len(parts)-1], "/"), 1)
		return fs.at(name, f.procs), name
	}
	if f.name != "" && strings.HasPrefix(f.name, "Scaling/") && f.procs > 1 {
		return fs.at(f.name, 1), "one processor"
	}
	if last := len(parts) - 1; last >= 1 && isPeer(parts[0]) && !strings.HasPrefix(parts[last], "fob") {
		for _, ours := range []string{"fob", "fob_v4", "fob_v4.public", "fob_v4.local"} {
			if found := fs.at(strings.Join(append(slices.Clone(parts[:last]), ours), "/"), f.procs); found != nil {
				return found, ours
			}
		}
	}
	return nil, ""
}

func isPeer(name string) bool {
	return slices.Contains([]string{"CachedKey", "UncachedKey", "Token", "Cache", "CacheChurn"}, name)
}

// table is what is printed, in HTML and in Markdown.
type table struct{ rows [][]string }

var columns = []string{"benchmark", "procs", "median", "least to most", "ratio", "against", "allocs/op", "more"}

func (fs *figures) table() *table {
	t := &table{}
	for _, f := range fs.all {
		ratio, words := "", ""
		if other, name := fs.against(f); other != nil && other.ns() > 0 && other != f {
			r := f.ns() / other.ns()
			if name == "one processor" {
				ratio, words = fmt.Sprintf("%.2f × the rate", 1/r), "of "+name
			} else {
				ratio, words = fmt.Sprintf("%.2f", r), name
			}
		}
		t.rows = append(t.rows, []string{
			f.name, strconv.Itoa(f.procs), duration(f.ns()), duration(f.least) + " to " + duration(f.most),
			ratio, words, strconv.FormatFloat(f.values["allocs/op"], 'g', -1, 64), f.more(),
		})
	}
	return t
}

// more is the measurements that every benchmark does not have.
func (f *figure) more() string {
	var parts []string
	for unit, v := range f.values {
		if unit != "ns/op" && unit != "B/op" && unit != "allocs/op" {
			parts = append(parts, fmt.Sprintf("%.4g %s", v, unit))
		}
	}
	slices.SortFunc(parts, func(a, b string) int {
		return cmp.Compare(a[strings.IndexByte(a, ' '):], b[strings.IndexByte(b, ' '):])
	})
	return strings.Join(parts, ", ")
}

func duration(ns float64) string {
	switch {
	case ns == 0:
		return "0"
	case ns < 1000:
		return fmt.Sprintf("%.3g ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	}
	return fmt.Sprintf("%.3g s", ns/1e9)
}

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{columns}, t.rows...) {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}
