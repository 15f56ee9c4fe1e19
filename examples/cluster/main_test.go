package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// masks replaces what differs from run to run.
var masks = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`within \d+\.\d ms of its return|before the call had returned`), "<soon>"},
	{regexp.MustCompile(`after ([2-9]|\d\d+)\.\d s`), "after <n> s"},
}

// built is the program as a user builds it, made once for all tests.
var built struct {
	exe string
	out []byte
	err error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fob-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.exe = filepath.Join(dir, "program")
	built.out, built.err = exec.Command("go", "build", "-o", built.exe, ".").CombinedOutput()
	code := m.Run()
	_ = os.RemoveAll(dir) // a temporary folder
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	require.NoError(t, built.err, "%s", built.out)
	return built.exe
}

// The program, built as a user builds it, prints exactly this story.
func TestTheStory(t *testing.T) {
	told, err := exec.Command(build(t), "-rounds", "6", "-wait", "1h").CombinedOutput()
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

// If a server cannot be reached, the program says so, and no process is left running.
func TestWithoutAServer(t *testing.T) {
	told, err := exec.Command(build(t), "-etcd", "127.0.0.1:1", "-wait", "1s").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(told), "the store does not answer")
}

// When the program is interrupted, it leaves no file behind.
func TestAnInterrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(build(t), "-rounds", "1000000", "-wait", "1h")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "3.") {
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() { // until the program and all processes that share its output have ended
	}
	require.Error(t, cmd.Wait())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
