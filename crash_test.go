package fob_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// crashDir, when set, makes the test binary the child of TestKill9.
const crashDir = "FOB_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// crashChild issues and revokes from 8 goroutines until it is killed. It says
// what it is about to do where that matters, and what has returned.
func crashChild(dir string) error {
	store, err := badger.Open(dir, badger.Options{})
	if err != nil {
		return err
	}
	m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(what, text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what, text)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				secret, key, err := m.IssueKey(context.Background(), fob.KeySpec{Subject: fob.App(fmt.Sprintf("app-%d", w))})
				if err != nil {
					say("error", err.Error())
					return
				}
				say("issued", secret.Reveal())
				if i%2 == 0 {
					continue
				}
				say("revoking", secret.Reveal())
				if _, err := m.Revoke(context.Background(), key.ID(), "test"); err != nil {
					say("error", err.Error())
					return
				}
				say("revoked", secret.Reveal())
			}
		})
	}
	wg.Wait()
	return errors.New("all writers ended")
}

// Nothing acknowledged is lost when the process is killed with SIGKILL at any
// moment, and no acknowledged revocation comes undone.
func TestKill9(t *testing.T) {
	rounds := 20
	if os.Getenv("FOB_LONG") != "" {
		rounds = 50
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(50, 9))
	state := map[string]string{} // the last thing that was said of each key
	for round := range rounds {
		cmd := exec.Command(exe, "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		said := map[string]string{}
		killAfter(t, cmd, 1+rng.IntN(400), said)
		maps.Copy(state, said)
		if round == rounds-1 {
			said = state // at the end everything, of all lives
		}
		checkAfterCrash(t, dir, said)
	}
	t.Logf("%d lives, %d keys acknowledged, none lost, none revived", rounds, len(state))
}

// killAfter runs the child until it has said n things, and kills it. What is in
// the pipe by then was said too.
func killAfter(t *testing.T, cmd *exec.Cmd, n int, said map[string]string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	seen := 0
	for lines.Scan() {
		what, text, _ := strings.Cut(lines.Text(), " ")
		if what == "error" {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the child failed: %s", text)
		}
		said[text] = what
		if seen++; seen == n {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait(), "killed")
	require.GreaterOrEqual(t, seen, n)
}

func checkAfterCrash(t *testing.T, dir string, said map[string]string) {
	t.Helper()
	store, err := badger.Open(dir, badger.Options{})
	require.NoError(t, err)
	m := newManager(t, store, fob.Config{})
	for text, what := range said {
		_, err := m.Verify(context.Background(), text)
		switch what {
		case "issued":
			require.NoError(t, err, "an acknowledged key is lost")
		case "revoked":
			require.ErrorIs(t, err, fob.ErrRevoked, "an acknowledged revocation is undone")
		default: // it was being revoked: either, but never unknown
			if err != nil {
				require.ErrorIs(t, err, fob.ErrRevoked)
			}
		}
	}
	require.NoError(t, m.Close())
	require.NoError(t, store.Close())
}
