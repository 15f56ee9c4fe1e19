// Command cluster runs three processes on one store, revokes a key in one of them, and
// prints how long the others went on accepting it:
//
//	go run ./examples/cluster
//
// It needs nothing installed, because the store is a SQLite file in a temporary directory.
// With -postgres or -etcd the store is a server of yours. The program creates a schema or
// a prefix of its own there and does not remove it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var s storeAt
	flag.StringVar(&s.Postgres, "postgres", "", "a PostgreSQL server, as postgres://user@host/database")
	flag.StringVar(&s.Etcd, "etcd", "", "the endpoints of an etcd cluster, as host:port,host:port")
	rounds := flag.Int("rounds", 50, "how many revocations to measure")
	flag.DurationVar(&s.Wait, "wait", 30*time.Second, "how long a process waits for the store, and for a refusal, before it gives up")
	flag.Parse()
	var err error
	if text := os.Getenv(childEnv); text != "" {
		err = runChild(context.Background(), text, os.Stdin, os.Stdout)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = story(ctx, os.Stdout, s, *rounds)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func story(ctx context.Context, out io.Writer, s storeAt, rounds int) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	if s.Postgres == "" && s.Etcd == "" {
		dir, err := os.MkdirTemp("", "fob-cluster-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		s.SQLite = filepath.Join(dir, "fob.db")
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	processes := make([]*process, 3)
	for i := range processes {
		p, err := start(ctx, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
		processes[i] = p
	}
	first, others := processes[0], processes[1:]
	say("Three processes, one store: %s.", s)

	say("\n1. Process 1 issues a key; all three accept it and remember that they did")
	key, err := first.ask(request{Do: "issue"})
	if err != nil {
		return err
	}
	for i, p := range processes {
		r, err := p.ask(request{Do: "verify", Text: key.Text})
		if err != nil {
			return err
		}
		say("   process %d: %s", i+1, r.Said)
	}

	say("\n2. Processes 2 and 3 serve requests with it, thousands in a second; process 1 revokes it")
	delays, err := revoke(first, others, key)
	if err != nil {
		return err
	}
	say("   process 1: revoked, and refused here at once")
	for i, d := range delays {
		say("   process %d: refused %s", i+2, after(d))
	}

	say("\n3. The same %d times more, a process at a time", rounds)
	var all []time.Duration
	for i := range rounds {
		here := i % len(processes)
		key, err := processes[here].ask(request{Do: "issue"})
		if err != nil {
			return err
		}
		elsewhere := slices.Concat(processes[:here], processes[here+1:])
		delays, err := revoke(processes[here], elsewhere, key)
		if err != nil {
			return err
		}
		all = append(all, delays...)
	}
	slices.Sort(all)
	if len(all) > 0 {
		say("   half of the others refused %s, 99 of 100 %s, the last %s", after(all[len(all)/2]), after(all[len(all)*99/100]), after(all[len(all)-1]))
	}

	say("\n4. Process 1 revokes a key everywhere: it returns when even a process that is cut off must refuse")
	if key, err = first.ask(request{Do: "issue"}); err != nil {
		return err
	}
	r, err := first.ask(request{Do: "everywhere", ID: key.ID})
	if err != nil {
		return err
	}
	say("   returned after %.1f s: no process, reachable or not, accepts it now", time.Duration(r.Ended-r.Began).Seconds())
	return nil
}

// after writes how long a refusal took. It is zero if the process refused before the
// revoking call had returned.
func after(d time.Duration) string {
	if d <= 0 {
		return "before the call had returned"
	}
	return fmt.Sprintf("within %.1f ms of its return", float64(d.Microseconds())/1000)
}

// revoke revokes a key in one process while the others verify it without a pause. For
// each of them it returns how long after the return of the call it last accepted the key.
func revoke(here *process, others []*process, key reply) ([]time.Duration, error) {
	for _, p := range others {
		if r, err := p.ask(request{Do: "watch", Text: key.Text}); err != nil {
			return nil, err
		} else if !strings.HasPrefix(r.Said, "accepted") {
			return nil, fmt.Errorf("a new key is %s", r.Said)
		}
	}
	revoked, err := here.ask(request{Do: "revoke", ID: key.ID})
	if err != nil {
		return nil, err
	}
	if r, err := here.ask(request{Do: "verify", Text: key.Text}); err != nil || r.Said != "refused: fob: credential revoked" {
		return nil, fmt.Errorf("after it was revoked here it is %s: %w", r.Said, err)
	}
	delays := make([]time.Duration, len(others))
	for i, p := range others {
		r, err := p.read() // the second reply: the process has refused the key
		if err != nil {
			return nil, err
		}
		delays[i] = time.Duration(r.Began - revoked.Ended)
	}
	return delays, nil
}
