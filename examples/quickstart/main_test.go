package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// masks replaces what differs from run to run.
var masks = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`acme_live_1[0-9A-Za-z]{16}…`), "acme_live_1<id>…"},
	{regexp.MustCompile(`id   [0-9A-Za-z]{16}`), "id   <id>"},
	{regexp.MustCompile(`last \d+s ago`), "last <n>s ago"},
	{regexp.MustCompile(`v4\.local\.[0-9A-Za-z_-]{11}…`), "v4.local.<sealed>…"},
	{regexp.MustCompile(`k4\.lid\.[0-9A-Za-z_-]{7}…`), "k4.lid.<id>…"},
}

// The program, built as a user builds it, prints exactly this story.
func TestTheStory(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "quickstart")
	build := exec.Command("go", "build", "-o", exe, ".")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	dir := filepath.Join(t.TempDir(), "database")
	cmd := exec.Command(exe, "-dir", dir)
	told, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", told)
	got := string(told)
	for _, m := range masks {
		got = m.what.ReplaceAllString(got, m.with)
	}
	want, err := os.ReadFile("testdata/story.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got)

	// It has printed no key in full.
	require.NotRegexp(t, `acme_live_1[0-9A-Za-z]{54}`, string(told))
	require.NotRegexp(t, `v4\.local\.[0-9A-Za-z_-]{12}`, string(told))
	require.NotRegexp(t, `fobrefresh_`, string(told))
	require.Equal(t, 3, strings.Count(string(told), "…\n"))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, files, "the database is where it was asked for")
}
