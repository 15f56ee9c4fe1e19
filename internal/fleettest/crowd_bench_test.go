package fleettest_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// BenchmarkCrowd is many processes on one store, of which one revokes. What one more
// process costs the store and takes of memory is a figure for each process, which should be
// the same for few and for many. How late the last of them refuses is told for all of them
// in one operating system process, which does the work of all on its processors.
//
//	FOB_CROWD=10,100,500 go test -run '^$' -bench Crowd -benchtime 1x ./internal/fleettest
func BenchmarkCrowd(b *testing.B) {
	for _, n := range crowdSizes(b) {
		b.Run(fmt.Sprintf("memory/processes=%d", n), func(b *testing.B) {
			store := memory.New()
			defer store.Close()
			measureCrowd(b, n, func() (float64, bool) { return 0, false }, func(b *testing.B) *fob.Manager {
				m, err := fob.New(store, crowdConfig())
				require.NoError(b, err)
				return m
			})
		})
	}
	for _, n := range crowdSizes(b) {
		b.Run(fmt.Sprintf("postgres/processes=%d", n), func(b *testing.B) {
			e := onPostgres{crowdServer(b, n)}
			at := e.fresh(b)
			measureCrowd(b, n, func() (float64, bool) { return transactions(b, at.URL), true }, func(b *testing.B) *fob.Manager {
				store, done, err := at.open(context.Background())
				require.NoError(b, err)
				b.Cleanup(done)
				m, err := fob.New(store, crowdConfig())
				require.NoError(b, err)
				return m
			})
		})
	}
}

func crowdSizes(b *testing.B) (sizes []int) {
	list := os.Getenv("FOB_CROWD")
	if list == "" {
		list = "10,40"
	}
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		require.NoError(b, err)
		sizes = append(sizes, n)
	}
	return sizes
}

// crowdServer is a server that takes the connections of so many processes.
func crowdServer(b *testing.B, processes int) *pgtest.Server {
	b.Helper()
	server, err := pgtest.Start(context.Background(), pgtest.Config{Settings: []string{fmt.Sprintf("max_connections = %d", 50+6*processes)}})
	if err != nil {
		b.Skipf("not on PostgreSQL: %v", err)
	}
	b.Cleanup(func() { require.NoError(b, server.Close()) })
	return server
}

// transactions returns how many transactions the server has ended, as it counts them.
func transactions(b *testing.B, url string) (n float64) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer conn.Close(context.Background())
	time.Sleep(1100 * time.Millisecond) // a session reports what it counts once a second
	require.NoError(b, conn.QueryRow(b.Context(), "SELECT sum(xact_commit) FROM pg_stat_database").Scan(&n))
	return n
}

const (
	crowdIdle      = 5 * time.Second
	crowdRevokes   = 200
	crowdPerSecond = 100
)

// measureCrowd starts n processes, leaves them alone, and lets the first of them revoke at
// crowdPerSecond. done returns how many transactions the store has made, if it tells.
func measureCrowd(b *testing.B, n int, done func() (float64, bool), start func(*testing.B) *fob.Manager) {
	for b.Loop() {
		goroutines, heap := runtime.NumGoroutine(), heapInUse()
		c := &crowd{all: make([]*fob.Manager, n)}
		inParallel(16, n, func(i int) { c.all[i] = start(b) })
		for _, m := range c.all {
			for !m.Health().Following {
				time.Sleep(time.Millisecond)
			}
		}
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(n), "goroutines/process")
		b.ReportMetric(float64(heapInUse()-heap)/1024/float64(n), "KiB/process")

		before, tells := done()
		cpu, began := processorTime(b), time.Now()
		time.Sleep(crowdIdle)
		idle := time.Since(began).Seconds()
		rest := (processorTime(b) - cpu).Seconds() / idle // seconds of a processor in each second
		b.ReportMetric(rest/float64(n)*1e6, "idle-µs/s/process")
		if tells {
			after, _ := done()
			b.ReportMetric((after-before)/time.Since(began).Seconds()/float64(n), "idle-transactions/s/process")
		}

		s := &storm{here: c.all[0]}
		var victims [2 * crowdRevokes]victim
		for i := range victims {
			victims[i] = s.victim(b, "tokens", i)
		}
		// Nobody looks at the first half, so that what they cost is the cost of being told.
		before, _ = done()
		cpu, began = processorTime(b), time.Now()
		for i, v := range victims[:crowdRevokes] {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / crowdPerSecond)))
			require.NoError(b, v.revoke(b.Context()))
		}
		time.Sleep(200 * time.Millisecond) // until all have been told
		took := time.Since(began).Seconds()
		b.ReportMetric(((processorTime(b)-cpu).Seconds()-rest*took)/float64(n*crowdRevokes)*1e6, "µs/told/process")
		if tells {
			after, _ := done()
			b.ReportMetric((after-before)/time.Since(began).Seconds()/float64(n), "storm-transactions/s/process")
		}
		for _, v := range victims[crowdRevokes:] {
			require.Zero(b, c.refused(b, v.text))
		}
		late := c.late(b, victims[crowdRevokes:])
		b.ReportMetric(ms(quantile(late, 50)), "p50-ms")
		b.ReportMetric(ms(quantile(late, 99)), "p99-ms")
		b.ReportMetric(ms(late[len(late)-1]), "max-ms")
		for _, v := range victims {
			require.Equal(b, n, c.refused(b, v.text))
		}
		c.close(b)
	}
	b.ReportMetric(0, "ns/op")
}

// late revokes what it is given, one after the other, and returns how long after the return
// of each revocation each of the other processes refused it.
func (c *crowd) late(b *testing.B, victims []victim) (late []time.Duration) {
	tick := time.NewTicker(time.Second / crowdPerSecond)
	defer tick.Stop()
	for _, v := range victims {
		<-tick.C
		require.NoError(b, v.revoke(b.Context()))
		returned := time.Now()
		for open := slices.Clone(c.all[1:]); len(open) > 0; {
			left := open[:0]
			for _, m := range open {
				if _, err := m.Verify(b.Context(), v.text); err == nil {
					left = append(left, m)
					continue
				}
				late = append(late, time.Since(returned))
			}
			open = left
			runtime.Gosched()
		}
	}
	slices.Sort(late)
	return late
}

// processorTime is what this operating system process has used so far.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
