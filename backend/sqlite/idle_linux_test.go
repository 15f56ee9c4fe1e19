package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What a process pays for a feed in which nothing happens, in thousandths of a
// core, beside what it pays for a timer of the same interval with nothing to do.
func BenchmarkIdleFeed(b *testing.B) {
	const span = 3 * time.Second
	for _, every := range []time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		b.Run(fmt.Sprint("timer/", every), func(b *testing.B) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			before := cpu(b)
			for range span / every {
				<-tick.C
			}
			b.ReportMetric(1000*(cpu(b)-before).Seconds()/span.Seconds(), "millicores")
			b.ReportMetric(0, "ns/op")
		})
		b.Run(fmt.Sprint("feed/", every), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "fob.db"), sqlite.Options{PollEvery: every})
			ctx, cancel := context.WithCancel(b.Context())
			watched := make(chan error, 1)
			batches := 0
			go func() {
				watched <- s.Watch(ctx, nil, func(backend.Batch) error { batches++; return nil })
			}()
			before := cpu(b)
			time.Sleep(span)
			used := cpu(b) - before
			cancel()
			<-watched
			require.Greater(b, batches, 30)
			b.ReportMetric(1000*used.Seconds()/span.Seconds(), "millicores")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
