package fob_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's program is the one in examples/hello, and prints what the README
// says it prints.
func TestTheREADMEsProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("examples/hello/main.go")
	require.NoError(t, err)
	_, program, ok := strings.Cut(string(source), "package main\n")
	require.True(t, ok)
	require.Contains(t, string(readme), "```go\npackage main\n"+program+"```\n")

	run := exec.Command("go", "run", "./examples/hello")
	run.Env = append(os.Environ(), "GOFLAGS=") // those of a user may make it say more
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "application app-42 true <nil>\nrevoked: <nil>\nfob: credential revoked\n", string(out))
	require.Contains(t, string(readme), "```\n"+string(out)+"```\n")
}
