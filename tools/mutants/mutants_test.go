package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A package, with tests that notice some of its changes.
const (
	program1 = `package small

import "errors"

const most = 3

var errMost = errors.New("more than most")

// Add is a sum up to most.
func Add(a, b int) (int, error) {
	if a+b > most {
		return 0, errMost
	}
	return a + b, nil
}

// Never is not tested.
func Never(a int) bool {
	return a == 1
}

// Wait changes nothing by its last statement.
func Wait(list []int) (n int) {
	for _, v := range list {
		if v < 0 {
			continue
		}
		n += v
	}
	return n
}
`
	tests1 = `package small_test

import (
	"testing"

	"example.com/small"
)

func TestAdd(t *testing.T) {
	if n, err := small.Add(1, 2); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := small.Add(2, 2); err == nil {
		t.Fatal("no error")
	}
}

func TestWait(t *testing.T) {
	if small.Wait([]int{1, 2}) != 3 {
		t.Fatal("the sum")
	}
}
`
)

func TestWhatIsNoticedAndWhatIsNot(t *testing.T) {
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "")
	root := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/small\n\ngo 1.26\n", "small.go": program1, "small_test.go": tests1} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verdicts := func(allowed allowed, sample uint64) (map[string]verdict, *result) {
		t.Helper()
		s := settings{root: root, parallel: 2, sample: sample, allowed: allowed, seen: map[string]verdict{}}
		r, err := s.one(".", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.seen, r
	}
	all, r := verdicts(nil, 1)
	for key, want := range map[string]verdict{
		"small.go Add: a+b > most -> a+b >= most":             killed,
		"small.go Add: a+b > most -> a+b <= most":             killed,
		"small.go Add: a+b -> a - b":                          killed,
		"small.go Add: return 0, errMost -> return 0, zero":   killed,
		"small.go Add: return a + b, nil -> return zero, nil": killed,
		"small.go const most: 3 -> (3+1)":                     killed,
		"small.go const most: 3 -> (3-1)":                     killed,
		"small.go Never: a == 1 -> a != 1":                    unreached,
		"small.go Never: a == 1 -> a == (1+1)":                unreached,
		"small.go Wait: v < 0 -> v <= 0":                      survived,
		"small.go Wait: v < 0 -> v >= 0":                      killed,
		"small.go Wait: continue -> (nothing)":                unreached,
		"small.go Wait: n += v -> n -= v":                     killed,
		"small.go Wait: n += v -> (nothing)":                  killed,
		"small.go Wait: return n -> return zero":              killed,
	} {
		if all[key] != want {
			t.Errorf("%s: %d, want %d", key, all[key], want)
		}
	}

	// A mutant in the list is not tried, and an entry whose mutant does not exist is an error.
	listed, again := verdicts(allowed{"small.go Wait: v < 0 -> v <= 0": "x", "small.go Wait: v < 0 -> v > 0": "x"}, 1)
	if again.listed != 1 || listed["small.go Wait: v < 0 -> v <= 0"] != 0 || again.counts[survived] != r.counts[survived]-1 {
		t.Errorf("%+v after %+v", again, r)
	}
	if len(again.wrong) != 1 || !strings.Contains(again.wrong[0].Error(), "v > 0") {
		t.Error(again.wrong)
	}

	// A sample is a part of the mutants, chosen by the texts of the changes.
	one, _ := verdicts(nil, 3)
	if len(one) == 0 || len(one) >= r.counts[killed] {
		t.Errorf("%d of %d", len(one), r.counts[killed])
	}
}

// What a package does for another one may be tested there alone.
func TestThePackageOfTheTestsMayBeAnotherOne(t *testing.T) {
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "")
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":         "module example.com/small\n\ngo 1.26\n",
		"inner/small.go": program1,
		"small.go":       "package outer\n\nimport \"example.com/small/inner\"\n\nfunc Sum(a, b int) (int, error) { return small.Add(a, b) }\n",
		"small_test.go":  "package outer\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n\tif n, err := Sum(1, 1); n != 2 || err != nil {\n\t\tt.Fatal(n, err)\n\t}\n}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := settings{root: root, parallel: 2, sample: 1, seen: map[string]verdict{}}
	if _, err := s.one("inner", ".", nil); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]verdict{
		"inner/small.go Add: a+b > most -> a+b >= most":             survived, // TestSum does not go so far
		"inner/small.go Wait: n += v -> n -= v":                     unreached,
		"inner/small.go Add: return a + b, nil -> return zero, nil": killed,
	} {
		if s.seen[key] != want {
			t.Errorf("%s: %d, want %d", key, s.seen[key], want)
		}
	}
}

func TestTheListWantsReasons(t *testing.T) {
	for text, want := range map[string]string{
		"# for people\n\na.go F: a -> b\na.go F: b -> a\n\tit is\n\tthe same\n": "",
		"a.go F: a -> b\n":                            "no reason",
		"a.go F: a -> b\n\ta\na.go F: a -> b\n\tb\n":  "twice",
		"\ta reason\n":                                "without a mutant",
		"a.go F: a -> b\n\tbecause\na.go F: b -> a\n": "no reason",
	} {
		name := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := readAllowed(name)
		switch {
		case want == "" && (err != nil || len(all) != 2 || all["a.go F: a -> b"] != "it is\nthe same\n"):
			t.Errorf("%q: %v %v", text, all, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestLongChangesAreCutToWhatDiffers(t *testing.T) {
	long := strings.Repeat("abcdefghij ", 12)
	was, now := differing(long+"x > 1"+long, long+"x < 1"+long)
	if len(was) > 60 || !strings.Contains(was, "x > 1") || !strings.Contains(now, "x < 1") {
		t.Errorf("%q and %q", was, now)
	}
}
