package backendtest

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

func (s *suite) durability() {
	if s.opts.Reopen == nil {
		return // not durable, and says so
	}
	st := s.newStore(s.T)
	var want []backend.Record
	for i := range 100 {
		rec := sample(i)
		rec.Version = s.put(st, rec, backend.IfAbsent())
		if i%2 == 0 {
			rec.Body = []byte("changed")
			rec.Version = s.put(st, rec, backend.IfVersion(rec.Version))
		}
		if i%10 == 9 {
			s.must(st.Delete(s.Context(), rec.ID, rec.Version), "delete")
			continue
		}
		want = append(want, rec)
	}
	r, usage := backend.As[backend.UsageRecorder](st)
	if usage {
		s.must(r.AddUsage(s.Context(), []backend.Usage{{ID: id(0), N: 3, Last: 9}}), "add usage")
	}
	var token backend.Token
	w, watches := backend.As[backend.Watcher](st)
	if watches {
		s.watch(st, w, nil, func(b backend.Batch) bool { token = b.Token; return true })
	}
	late := sample(500)
	late.Version = s.put(st, late, backend.IfAbsent())
	want = append(want, late)
	var cursor backend.Cursor
	l, lists := backend.As[backend.Lister](st)
	if lists {
		page, err := l.List(s.Context(), backend.Query{Kind: 1, Limit: 50})
		s.must(err, "list")
		cursor = page.Next
	}

	st = s.opts.Reopen(s.T, st)
	s.Cleanup(func() { _ = st.Close() })
	for _, rec := range want {
		got, err := st.Get(s.Context(), rec.ID)
		if err != nil {
			s.breaks("R9", "a Put that returned nil is there after a restart", "%v", err)
		}
		s.same(got, rec, "R9", "a record is the same after a restart")
	}
	_, err := st.Get(s.Context(), id(9))
	s.is(err, backend.ErrNotFound, "R9", "a Delete that returned nil holds after a restart")
	if usage {
		r, _ := backend.As[backend.UsageRecorder](st)
		u, err := r.Usage(s.Context(), []backend.ID{id(0)})
		s.must(err, "usage")
		if u[0].N != 3 || u[0].Last != 9 {
			s.breaks("R9", "usage is there after a restart", "%+v", u[0])
		}
	}
	if lists {
		l, _ := backend.As[backend.Lister](st)
		rest := s.walk(l, backend.Query{Kind: 1, Limit: 50, After: cursor}, nil)
		if len(rest) != len(want)-50 {
			s.breaks("R15", "a cursor survives a restart", "%d records after it, want %d", len(rest), len(want)-50)
		}
	}
	if watches {
		w, _ := backend.As[backend.Watcher](st)
		s.watch(st, w, token, func(b backend.Batch) bool {
			for _, c := range b.Changes {
				if c.ID == late.ID {
					return true
				}
			}
			return b.Reset // history may be lost, if it is said
		})
	}
	if rec := s.get(st, id(0)); s.put(st, rec, backend.IfVersion(rec.Version)) <= rec.Version {
		s.breaks("R8", "versions rise across a restart")
	}
	if s.opts.Kill != nil {
		s.opts.Kill(s.T)
	}
}

// KillWriter is the child's half of KillLoop: it writes to st from 8 goroutines
// until the process is killed, and reports every write that returned nil as one
// line on out. round makes the records of each life different.
func KillWriter(st backend.Store, out io.Writer, round int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				rec := sample(round*10_000_000 + w*1_000_000 + i)
				v, err := st.Put(background, rec, backend.IfAbsent())
				if err == nil && i%2 == 0 { // an overwrite is what a revocation is
					mu.Lock()
					_, _ = fmt.Fprintf(out, "%x %d\n", rec.ID[:], v)
					mu.Unlock()
					v, err = st.Put(background, rec, backend.IfVersion(v))
				}
				mu.Lock()
				if err != nil {
					_, _ = fmt.Fprintf(out, "error %v\n", err)
				} else {
					_, _ = fmt.Fprintf(out, "%x %d\n", rec.ID[:], v)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

// KillLoop starts the command that child makes (one whose process calls
// KillWriter with its standard output), kills it with SIGKILL after a random
// number of acknowledged writes, opens the store again and checks that every
// acknowledged write is there; rounds times over the same data.
func KillLoop(t *testing.T, rounds int, child func(round int) *exec.Cmd, open func(t *testing.T) backend.Store) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	acked := map[backend.ID]uint64{}
	for round := range rounds {
		killOnce(t, child(round), 1+rng.IntN(1500), acked)
		st := open(t)
		for rid, v := range acked {
			rec, err := st.Get(background, rid)
			if err != nil || rec.Version < v {
				t.Fatalf("rule R9 of package backend: a write that returned nil survives kill -9: round %d: version %d, want %d: %v", round, rec.Version, v, err)
			}
		}
		if err := st.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	t.Logf("%d rounds, %d records acknowledged, none lost", rounds, len(acked))
}

// killOnce runs one life of the child and collects what it acknowledged.
func killOnce(t *testing.T, cmd *exec.Cmd, after int, acked map[backend.ID]uint64) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var slow atomic.Bool
	timer := time.AfterFunc(time.Minute, func() { slow.Store(true); _ = cmd.Process.Kill() })
	defer timer.Stop()
	n := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, version, _ := strings.Cut(lines.Text(), " ")
		raw, err := hex.DecodeString(name)
		v, err2 := strconv.ParseUint(version, 10, 64)
		if err != nil || err2 != nil || len(raw) != len(backend.ID{}) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the child reports %q", lines.Text())
		}
		acked[backend.ID(raw)] = max(acked[backend.ID(raw)], v)
		if n++; n == after {
			_ = cmd.Process.Kill() // what is still in the pipe was acknowledged too
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if slow.Load() || n < after || !errors.As(err, &exit) {
		t.Fatalf("the child ended by itself or hung after %d writes: %v", n, err)
	}
}
