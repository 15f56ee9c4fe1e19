package fleettest_test

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// The example of a cluster tells its story on servers too; its own test has it on a file.
func TestTheExample(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "cluster")
	build := exec.Command("go", "build", "-o", exe, ".")
	build.Dir = filepath.Join("..", "..", "examples", "cluster")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	each(t, func(t *testing.T, e engine) {
		s := e.fresh(t)
		var args []string
		switch s.Kind {
		case "postgres":
			args = []string{"-postgres", s.URL}
		case "etcd":
			args = []string{"-etcd", s.Endpoints[0]}
		}
		story := exec.CommandContext(await.Context(t), exe, append(args, "-rounds", "5", "-wait", "1h")...)
		story.Cancel = func() error { return story.Process.Signal(syscall.SIGQUIT) } // it prints where it hangs
		story.WaitDelay = time.Second
		told, err := story.CombinedOutput()
		require.NoError(t, err, "%s", told)
		require.Contains(t, string(told), "process 3: refused")
		require.Contains(t, string(told), "no process, reachable or not, accepts it now")
		t.Logf("%s", told)
	})
}
