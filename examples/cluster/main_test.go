package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// masks replaces what differs from run to run.
var masks = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`within \d+\.\d ms of its return|before the call had returned`), "<soon>"},
	{regexp.MustCompile(`after [2-9]\.\d s`), "after <n> s"},
}

// The story is told by the program as a user builds it, and must be this one.
func TestTheStory(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "cluster")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	told, err := exec.Command(exe, "-rounds", "6").CombinedOutput()
	require.NoError(t, err, "%s", told)
	got := string(told)
	for _, m := range masks {
		got = m.what.ReplaceAllString(got, m.with)
	}
	want, err := os.ReadFile("testdata/story.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.NotRegexp(t, `acme_live_1[0-9A-Za-z]{54}`, got, "nothing that it printed is a whole key")
}
