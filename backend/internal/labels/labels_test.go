package labels_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/labels"
	"github.com/stretchr/testify/require"
)

// most is as many labels as a record can have, each as long as one can be.
func most() []string {
	list := make([]string, backend.MaxLabels)
	for i := range list {
		list[i] = fmt.Sprintf("%02d%s", i, strings.Repeat("x", backend.MaxLabel-2))
	}
	return list
}

func TestLabelsWithinAValue(t *testing.T) {
	for name, list := range map[string][]string{
		"none": nil, "one": {"a"}, "any bytes": {"\x00", "\x00\x00", "a\xff", "ü"}, "the most": most(),
	} {
		t.Run(name, func(t *testing.T) {
			b := labels.Append([]byte("before"), list)
			require.Len(t, b, len("before")+labels.Room(list))
			b = append(b, "after"...)[len("before"):]
			got, rest, ok := labels.Cut(b)
			require.True(t, ok)
			require.Equal(t, list, got)
			require.Equal(t, "after", string(rest))
			clear(b)
			require.Equal(t, list, got, "they have memory of their own")
		})
	}
}

func TestWhatIsCutOrIsNoLabels(t *testing.T) {
	whole := labels.Append(nil, []string{"a", "bc"})
	for n := range whole {
		_, _, ok := labels.Cut(whole[:n])
		require.False(t, ok, "the first %d bytes", n)
	}
	_, _, ok := labels.Cut(append([]byte{backend.MaxLabels + 1}, make([]byte, 1000)...))
	require.False(t, ok, "more than a record can have")
}

func TestWhatAnUpdateChanges(t *testing.T) {
	for name, c := range map[string]struct{ before, now, gone, added []string }{
		"nothing there":     {},
		"all the same":      {before: []string{"a", "b"}, now: []string{"a", "b"}},
		"all are new":       {now: []string{"a", "b"}, added: []string{"a", "b"}},
		"all go":            {before: []string{"a", "b"}, gone: []string{"a", "b"}},
		"one in between":    {before: []string{"a", "c"}, now: []string{"a", "b", "c"}, added: []string{"b"}},
		"one is replaced":   {before: []string{"a", "b", "d"}, now: []string{"a", "c", "d"}, gone: []string{"b"}, added: []string{"c"}},
		"the last ones":     {before: []string{"a", "b"}, now: []string{"a", "c"}, gone: []string{"b"}, added: []string{"c"}},
		"nothing in common": {before: []string{"b", "d"}, now: []string{"a", "c"}, gone: []string{"b", "d"}, added: []string{"a", "c"}},
		"a shorter one":     {before: []string{"ab"}, now: []string{"a"}, gone: []string{"ab"}, added: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			gone, added := labels.Changed(c.before, c.now)
			require.Equal(t, c.gone, gone)
			require.Equal(t, c.added, added)
		})
	}
	same, again := most(), most()
	require.Zero(t, testing.AllocsPerRun(10, func() { labels.Changed(same, again) }))
}

// What anybody has put there is labels or is refused, and labels are written back as they
// were read.
func FuzzCut(f *testing.F) {
	f.Add([]byte{0})
	f.Add(labels.Append(nil, []string{"a", "bc"}))
	f.Add([]byte{2, 0, 1, 'a', 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, rest, ok := labels.Cut(b)
		if ok {
			require.Equal(t, b, append(labels.Append(nil, list), rest...))
		}
	})
}
