package pgtest_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// The number of a process that has ended may be another's by now, whose children
// are no server's.
func TestKillOfAProcessThatHasEnded(t *testing.T) {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	bystander := exec.Command("sleep", "60")
	require.NoError(t, bystander.Start())
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	cmd.Process.Pid = os.Getpid()
	pgtest.KillEnded(cmd)
	select {
	case err := <-ended:
		t.Fatal("a child of another process was ended: ", err)
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, bystander.Process.Kill())
	<-ended
}
