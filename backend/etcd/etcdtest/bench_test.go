package etcdtest_test

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The benchmarks measure ratios within one run: what the store adds to etcd's own
// client, and what waiting together saves. Each checks that the work was done.

// numbered has an ID that none of the other benchmarks uses.
func numbered(family byte, n int) backend.Record {
	rec := record(n)
	rec.ID[0] = family
	rec.Owner = "owner"
	rec.Body = make([]byte, 900)
	binary.BigEndian.PutUint64(rec.Body, uint64(n))
	return rec
}

func BenchmarkGet(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	bare := client(b, c.Config())
	s := open(b, bare, etcd.Options{})
	rec := numbered(1, 1)
	_, err := s.Put(b.Context(), rec, backend.IfAbsent())
	require.NoError(b, err)
	var plain, ours time.Duration
	for b.Loop() { // in turn, so that both see the same machine
		at := time.Now()
		resp, err := bare.Get(b.Context(), "fob/r"+string(rec.ID[:]))
		plain += time.Since(at)
		if err != nil || len(resp.Kvs) != 1 {
			b.Fatal(err)
		}
		at = time.Now()
		got, err := s.Get(b.Context(), rec.ID)
		ours += time.Since(at)
		if err != nil || len(got.Body) != len(rec.Body) {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(ours)/float64(plain), "times-a-bare-Get")
}

// BenchmarkCreate compares 64 callers with one.
func BenchmarkCreate(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	s := open(b, client(b, c.Config()), etcd.Options{})
	rate := func(family byte, callers, n int) float64 {
		var next atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		for range callers {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(n); i = next.Add(1) {
					if _, err := s.Put(b.Context(), numbered(family, int(i)), backend.IfAbsent()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return float64(n) / time.Since(start).Seconds()
	}
	family := byte(0)
	var one, many float64
	for b.Loop() {
		family++
		one += rate(family, 1, 300)
		family++
		many += rate(family, 64, 3000)
	}
	page, err := s.List(b.Context(), backend.Query{Kind: 1, Limit: backend.MaxLimit})
	require.NoError(b, err)
	require.Len(b, page.Records, backend.MaxLimit)
	b.ReportMetric(many/one, "times-one-caller")
}

// BenchmarkUpdate compares an update, which reads first, with a create.
func BenchmarkUpdate(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	s := open(b, client(b, c.Config()), etcd.Options{})
	var create, update time.Duration
	n := 0
	for b.Loop() {
		n++
		rec := numbered(1, n)
		at := time.Now()
		v, err := s.Put(b.Context(), rec, backend.IfAbsent())
		create += time.Since(at)
		if err != nil {
			b.Fatal(err)
		}
		at = time.Now()
		next, err := s.Put(b.Context(), rec, backend.IfVersion(v))
		update += time.Since(at)
		if err != nil || next <= v {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(update)/float64(create), "times-a-create")
}

func BenchmarkListByOwner(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	bare := client(b, c.Config())
	s := open(b, bare, etcd.Options{})
	for n := range 100 {
		_, err := s.Put(b.Context(), numbered(1, n), backend.IfAbsent())
		require.NoError(b, err)
	}
	var plain, ours time.Duration
	for b.Loop() {
		at := time.Now()
		resp, err := bare.Get(b.Context(), "fob/r", clientv3.WithPrefix(), clientv3.WithLimit(100))
		plain += time.Since(at)
		if err != nil || len(resp.Kvs) != 100 {
			b.Fatal(err)
		}
		at = time.Now()
		page, err := s.List(b.Context(), backend.Query{Kind: 1, Owner: "owner", Limit: 100})
		ours += time.Since(at)
		if err != nil || len(page.Records) != 100 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(ours)/float64(plain), "times-a-bare-range")
}

// BenchmarkFeed measures from the return of a write to its change in another
// client's feed.
func BenchmarkFeed(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	s, other := open(b, client(b, c.Config()), etcd.Options{}), open(b, client(b, c.Config()), etcd.Options{})
	rec := create(b, s, 1)
	type seen struct {
		version uint64
		at      time.Time
	}
	news := make(chan seen, 1024)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	begun := make(chan struct{}, 1)
	go func() {
		defer close(done)
		_ = other.Watch(ctx, nil, func(batch backend.Batch) error {
			select {
			case begun <- struct{}{}:
			default:
			}
			for _, ch := range batch.Changes {
				news <- seen{ch.Version, time.Now()}
			}
			return nil
		})
	}()
	<-begun
	var late []time.Duration
	for b.Loop() {
		rec.Version, _ = s.Put(b.Context(), rec, backend.IfVersion(rec.Version))
		returned := time.Now()
		got := <-news
		for got.version < rec.Version {
			got = <-news
		}
		late = append(late, got.at.Sub(returned))
	}
	cancel()
	<-done
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds()), "p99-us")
}

// BenchmarkProof measures what an idle feed costs: the proofs in a second, and
// how much of a processor they take, the server's part included, against the
// bare reads that a second of one caller makes.
func BenchmarkProof(b *testing.B) {
	c := cluster(b, 1, etcdtest.Options{})
	s := open(b, client(b, c.Config()), etcd.Options{})
	create(b, s, 1)
	const feeds = 20 // one alone is lost in the noise
	var wg sync.WaitGroup
	var batches atomic.Int64
	idle := cpu()
	time.Sleep(time.Second)
	idle = cpu() - idle
	ctx, cancel := context.WithCancel(b.Context())
	for range feeds {
		wg.Go(func() {
			_ = s.Watch(ctx, nil, func(backend.Batch) error { batches.Add(1); return nil })
		})
	}
	time.Sleep(100 * time.Millisecond)
	var spent, took time.Duration
	before := batches.Load()
	for b.Loop() {
		at, from := time.Now(), cpu()
		time.Sleep(time.Second)
		spent, took = spent+cpu()-from, took+time.Since(at)
	}
	proofs := float64(batches.Load()-before) / took.Seconds() / feeds
	cancel()
	wg.Wait()
	require.Greater(b, proofs, float64(time.Second/backend.HeartbeatEvery))
	each := (spent.Seconds() - idle.Seconds()*took.Seconds()) / took.Seconds() / feeds
	b.ReportMetric(proofs, "proofs/s")
	b.ReportMetric(each*100, "%-of-a-core")
	b.ReportMetric(each/proofs*1e6, "cpu-us/proof")
}

// mark is the n-th of many small records.
func mark(n int) backend.Record {
	rec := numbered(9, n)
	rec.ID = backend.ID{9, byte(n * 7919), byte(n >> 16), byte(n >> 8), byte(n)} // as good as random
	rec.Kind, rec.Owner, rec.Body, rec.PurgeAt = 9, "", rec.Body[:16], int64(n)
	return rec
}

// BenchmarkBulk reads many marks: all of them by a Scan and by pages, and a thousand of
// them at once and one after the other.
func BenchmarkBulk(b *testing.B) {
	const n = 100_000
	c := cluster(b, 1, etcdtest.Options{NoSync: true})
	s := open(b, client(b, c.Config()), etcd.Options{})
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				if _, err := s.Put(b.Context(), mark(int(i)), backend.IfAbsent()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	ids := make([]backend.ID, backend.MaxLimit)
	for i := range ids {
		ids[i] = mark(1 + i*97%n).ID
	}
	for _, c := range []struct {
		name string
		most int
		read func() (int, error)
	}{
		{"scan", n, func() (got int, err error) {
			err = s.Scan(b.Context(), 9, func(recs []backend.Record) error { got += len(recs); return nil })
			return got, err
		}},
		{"pages", n, func() (got int, err error) {
			for q := (backend.Query{Kind: 9, Limit: backend.MaxLimit}); ; {
				page, err := s.List(b.Context(), q)
				got += len(page.Records)
				if q.After = page.Next; err != nil || q.After == "" {
					return got, err
				}
			}
		}},
		{"many", len(ids), func() (int, error) {
			recs, err := s.GetMany(b.Context(), ids)
			return len(recs), err
		}},
		{"each", len(ids), func() (int, error) {
			for _, id := range ids {
				if _, err := s.Get(b.Context(), id); err != nil {
					return 0, err
				}
			}
			return len(ids), nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				got, err := c.read()
				require.NoError(b, err)
				require.Equal(b, c.most, got)
			}
			b.ReportMetric(float64(c.most*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkFirstPage reads the first page of a list of 40,000 in a store of 50,000, oldest
// and newest first: records of the year until now, and, as the hardest to find the end of,
// 10,000 that were made within ten seconds a year ago. The bare client asks for the keys of the same 100 records, oldest
// first, which is all that etcd does well, and reads the records.
func BenchmarkFirstPage(b *testing.B) {
	const n, page = 50_000, 100
	c := cluster(b, 1, etcdtest.Options{NoSync: true})
	bare := client(b, c.Config())
	s := open(b, bare, patient)
	year := time.Now().AddDate(-1, 0, 0).UnixMilli()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				rec := record(int(i))
				rec.Created, rec.Labels = year+i*int64(365*24*time.Hour/n/time.Millisecond), []string{"label"}
				if i%5 == 0 {
					rec.Created, rec.Labels = year+i/5, []string{"burst"}
				}
				if _, err := s.Put(b.Context(), rec, backend.IfAbsent()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	start := "fob/l\x01\x00\x05label"
	end := clientv3.GetPrefixRangeEnd(start)
	plain := func() {
		keys, err := bare.Get(b.Context(), start, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithKeysOnly())
		if err != nil || len(keys.Kvs) != page {
			b.Fatal(err)
		}
		var ops []clientv3.Op
		for _, kv := range keys.Kvs {
			ops = append(ops, clientv3.OpGet("fob/r"+string(kv.Key[len(kv.Key)-16:])))
		}
		recs, err := bare.Txn(b.Context()).Then(ops...).Commit()
		if err != nil || len(recs.Responses[page-1].GetResponseRange().Kvs) != 1 {
			b.Fatal(err)
		}
	}
	for name, q := range map[string]backend.Query{
		"label": {Kind: 1, Label: "label"}, "label, newest": {Kind: 1, Label: "label", Newest: true}, "kind, newest": {Kind: 1, Newest: true},
		"burst, newest": {Kind: 1, Label: "burst", Newest: true},
	} {
		b.Run(name, func(b *testing.B) {
			var theirs, ours time.Duration
			for b.Loop() { // in turn, so that both see the same machine
				at := time.Now()
				plain()
				theirs += time.Since(at)
				at = time.Now()
				got, err := s.List(b.Context(), q)
				ours += time.Since(at)
				if err != nil || len(got.Records) != page || got.Next == "" || (got.Records[0].Created < got.Records[1].Created) == q.Newest {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(ours)/float64(theirs), "times-a-bare-list")
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			got, err := s.Count(b.Context(), backend.Query{Kind: 1, Label: "label"}, n+1)
			if err != nil || got != n/5*4 {
				b.Fatal(got, err)
			}
		}
	})
}
