package backendtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// roundRecords is how many records one life of a child may write.
const roundRecords = 10_000_000

// KillWriter is the child's half of KillLoop: it writes to store from 8
// goroutines until the process is killed, and acknowledges each write that has
// returned nil with one line on out, which is os.Stdout as a rule. round is the
// number that KillLoop gave to the command.
func KillWriter(store backend.Store, out io.Writer, round int) {
	var mu sync.Mutex // guards out
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(out, format, args...) // nobody is left to tell of an error
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range roundRecords / 8 {
				n := round*roundRecords + i*8 + w
				version, err := store.Put(context.Background(), killed(n, stepCreated), backend.IfAbsent())
				for step := stepCreated; err == nil; step++ {
					say("ack %d %d %d\n", n, step, version)
					if step == lastStep(n) {
						break
					}
					if step+1 == stepDeleted {
						err = store.Delete(context.Background(), idOf(n), version)
					} else {
						version, err = store.Put(context.Background(), killed(n, step+1), backend.IfVersion(version))
					}
				}
				if err != nil {
					say("error in record %d: %q\n", n, err.Error())
					return
				}
			}
		})
	}
	wg.Wait()
}

// KillLoop starts the command that child returns, kills its process with SIGKILL
// after a random number of acknowledged writes, opens the store again and checks
// that every write that was acknowledged is there, that the one under way is
// there whole or not at all, and that the lists agree; rounds times over the same
// data. The process must open the store and call KillWriter:
//
//	func TestMain(m *testing.M) {
//		if dir := os.Getenv("KILL_DIR"); dir != "" {
//			store, err := mystore.Open(dir)
//			if err != nil {
//				log.Fatal(err)
//			}
//			round, _ := strconv.Atoi(os.Getenv("KILL_ROUND"))
//			backendtest.KillWriter(store, os.Stdout, round)
//		}
//		os.Exit(m.Run())
//	}
//
//	Kill: func(t *testing.T) {
//		dir := t.TempDir()
//		backendtest.KillLoop(t, 5, func(round int) *exec.Cmd {
//			cmd := exec.Command(os.Args[0])
//			cmd.Env = append(os.Environ(), "KILL_DIR="+dir, fmt.Sprint("KILL_ROUND=", round))
//			return cmd
//		}, func(t *testing.T) backend.Store { return open(t, dir) })
//	}
func KillLoop(t *testing.T, rounds int, child func(round int) *exec.Cmd, open func(t *testing.T) backend.Store) {
	t.Helper()
	killLoop(t, rounds, child, func() backend.Store { return open(t) })
}

// ack is the last write of a record that a child has acknowledged.
type ack struct {
	step    int
	version uint64
}

// beforeDelete reports whether what is under way for a record is that it is deleted.
func (a ack) beforeDelete(n int) bool { return a.step+1 == stepDeleted && lastStep(n) == stepDeleted }

func killLoop(r reporter, rounds int, child func(round int) *exec.Cmd, open func() backend.Store) {
	r.Helper()
	p := &probe{reporter: r, rule: 9, ctx: context.Background(), opts: Options{}.withDefaults()}
	rng := rand.New(rand.NewPCG(7, 7)) // where to kill need not be secret
	acked := make(map[int]ack)
	for round := range rounds {
		if err := killOnce(child(round), 1+rng.IntN(1500), p.opts.Patience, acked); err != nil {
			r.Fatalf("backendtest: round %d of killing: %v", round, err)
		}
		p.store = open()
		p.survived(round, acked)
		if err := p.store.Close(); err != nil {
			p.rule = 11
			p.broken("Close after a restart failed: %v", err)
		}
	}
	r.Logf("%d processes were killed after %d records had been acknowledged", rounds, len(acked))
}

// killOnce runs one life of a child and notes what it acknowledged.
func killOnce(cmd *exec.Cmd, after int, patience time.Duration, acked map[int]ack) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var slow atomic.Bool
	timer := time.AfterFunc(patience, func() {
		slow.Store(true)
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	n := 0
	var said error
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var record int
		var a ack
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %d %d", &record, &a.step, &a.version); err != nil {
			said = fmt.Errorf("the process says %q", lines.Text())
			_ = cmd.Process.Kill()
			break
		}
		acked[record] = a
		if n++; n == after {
			_ = cmd.Process.Kill() // what is still in the pipe was acknowledged too
		}
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case said != nil:
		return said
	case slow.Load():
		return fmt.Errorf("the process acknowledged %d writes in %v, want %d", n, patience, after)
	case n < after || !errors.As(err, &exit):
		return fmt.Errorf("the process ended by itself after %d writes: %w", n, err)
	}
	return nil
}

// survived compares the store with what was acknowledged.
func (p *probe) survived(round int, acked map[int]ack) {
	p.Helper()
	present := make(map[backend.ID]int)
	for n, a := range acked {
		got, err := p.store.Get(p.ctx, idOf(n))
		switch {
		case is(err, backend.ErrNotFound) && (a.step == stepDeleted || a.beforeDelete(n)):
			continue
		case err != nil || a.step == stepDeleted:
			p.broken("round %d of killing: step %d of record %d was acknowledged with version %d, and after the restart Get answers (%s, %v)",
				round, a.step, n, a.version, show(got), err)
		}
		present[got.ID] = n
		as := same(got, killed(n, a.step)) && got.Version == a.version
		further := a.step+1 <= stepOverwritten && same(got, killed(n, a.step+1)) && got.Version > a.version
		if !as && !further {
			p.broken("round %d of killing: step %d of record %d was acknowledged with version %d, and after the restart the record is %s",
				round, a.step, n, a.version, show(got))
		}
	}
	if _, ok := optional[backend.Lister](p); !ok {
		return
	}
	p.rule = 15
	defer func() { p.rule = 9 }()
	for _, rec := range p.walk(backend.Query{Kind: 1, Limit: backend.MaxLimit}) {
		if _, there := present[rec.ID]; !there && !same(rec, killed(int(rec.Created-born), stepCreated)) {
			p.broken("round %d of killing: a list shows a record that nobody wrote: %s", round, show(rec))
		}
		delete(present, rec.ID)
	}
	for id, n := range present {
		// A server may finish what the process had sent, and delete it just now.
		if acked[n].beforeDelete(n) {
			if _, err := p.store.Get(p.ctx, id); is(err, backend.ErrNotFound) {
				delete(present, id)
			}
		}
	}
	if len(present) > 0 {
		p.broken("round %d of killing: %d records are there and in no list", round, len(present))
	}
}
