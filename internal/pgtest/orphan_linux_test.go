package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

const childDir = "FOB_PGTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childDir) != "" {
		s, err := pgtest.Start(context.Background(), pgtest.Config{})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("at", s.Address())
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

// A server does not outlive the process that started it, even one that is killed.
func TestServerEndsWithItsParent(t *testing.T) {
	if testing.Short() {
		t.Skip("initdb takes seconds")
	}
	cmd := exec.Command(os.Args[0])
	// What a killed process cannot remove goes with the test's folder. That must be
	// open to the server's user, unlike t.TempDir.
	dir, err := os.MkdirTemp("/var/tmp", "fob-pgtest-")
	require.NoError(t, err)
	defer func() {
		// The server's other processes end after it has let go of its port.
		await.Until(t, "a folder that nobody writes to", func() bool { return os.RemoveAll(dir) == nil })
	}()
	require.NoError(t, os.Chmod(dir, 0o777))
	cmd.Env = append(os.Environ(), childDir+"=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	if strings.Contains(line, pgtest.ErrNoServer.Error()) {
		_ = cmd.Wait() // it has said why it ended
		t.Skip(line)
	}
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "at ")
	require.True(t, ok, line)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	await.Until(t, "a port at which nobody listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}
