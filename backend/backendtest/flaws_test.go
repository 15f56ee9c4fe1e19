package backendtest_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// The flaws that take more than a few lines; flaws, in broken_test.go, names all of them.

func mutableParent(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	parents := make(map[backend.ID]backend.ID) // of the records that moved
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		old, err := f.Store.Get(ctx, rec.ID)
		if v, ok := cond.Version(); ok && err == nil && old.Version == v && old.Parent != rec.Parent {
			mu.Lock()
			parents[rec.ID] = rec.Parent
			mu.Unlock()
			rec.Parent = old.Parent
		}
		return f.Store.Put(ctx, rec, cond)
	}
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		rec, err := f.Store.Get(ctx, id)
		mu.Lock()
		defer mu.Unlock()
		if parent, moved := parents[id]; moved && err == nil {
			rec.Parent = parent
		}
		return rec, err
	}
}

func versionsBeginAnew(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	base := make(map[backend.ID]uint64) // what a record's versions are above
	out := func(id backend.ID, v uint64) uint64 { return v - base[id] }
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		rec, err := f.Store.Get(ctx, id)
		if err == nil {
			rec.Version = out(id, rec.Version)
		}
		return rec, err
	}
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		if v, ok := cond.Version(); ok {
			v, err := f.Store.Put(ctx, rec, backend.IfVersion(v+base[rec.ID]))
			return out(rec.ID, v), err
		}
		v, err := f.Store.Put(ctx, rec, cond)
		if err != nil {
			return 0, err
		}
		base[rec.ID] = v - 1
		return 1, nil
	}
	f.remove = func(ctx context.Context, id backend.ID, version uint64) error {
		mu.Lock()
		defer mu.Unlock()
		return f.Store.Delete(ctx, id, version+base[id])
	}
	f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
		mu.Lock()
		defer mu.Unlock()
		page, err := f.Store.List(ctx, q)
		for i, rec := range page.Records {
			page.Records[i].Version = out(rec.ID, rec.Version)
		}
		return page, err
	}
}

func staleOnce(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	stale := make(map[backend.ID]backend.Record)
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		old, missing := f.Store.Get(ctx, rec.ID)
		v, err := f.Store.Put(ctx, rec, cond)
		if err == nil && missing == nil {
			stale[rec.ID] = old
		}
		return v, err
	}
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		rec, err := f.Store.Get(ctx, id)
		if old, ok := stale[id]; ok && err == nil {
			delete(stale, id)
			return old, nil
		}
		return rec, err
	}
}

func checkThenWrite(_ *testing.T, f *flawed) {
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		v, ifVersion := cond.Version()
		old, err := f.Store.Get(ctx, rec.ID)
		if !ifVersion || err != nil || old.Version != v {
			return f.Store.Put(ctx, rec, cond)
		}
		for { // the condition holds: now write, whatever it takes
			runtime.Gosched()
			v, err := f.Store.Put(ctx, rec, backend.IfVersion(old.Version))
			if !errors.Is(err, backend.ErrConflict) {
				return v, err
			}
			if old, err = f.Store.Get(ctx, rec.ID); err != nil {
				return 0, err
			}
		}
	}
}

func sharedGets(_ *testing.T, f *flawed) {
	var gets atomic.Int64
	var mu sync.Mutex
	under := make(map[backend.ID]int)
	shared := make(map[backend.ID]backend.Record)
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		mu.Lock()
		under[id]++
		defer func() {
			mu.Lock()
			if under[id]--; under[id] == 0 {
				delete(shared, id)
			}
			mu.Unlock()
		}()
		if rec, ok := shared[id]; ok && ctx.Err() == nil {
			rec.Body = slices.Clone(rec.Body)
			mu.Unlock()
			return rec, nil
		}
		mu.Unlock()
		rec, err := f.Store.Get(ctx, id)
		if err == nil {
			mu.Lock()
			own := rec
			own.Body = slices.Clone(rec.Body)
			shared[id] = own
			mu.Unlock()
			if gets.Add(1)%8 == 0 { // most are quick: the suite makes many
				time.Sleep(100 * time.Microsecond)
			}
		}
		return rec, err
	}
}

func keepsBody(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	bodies := make(map[backend.ID][]byte)
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		v, err := f.Store.Put(ctx, rec, cond)
		if err == nil {
			bodies[rec.ID] = rec.Body
		}
		return v, err
	}
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		rec, err := f.Store.Get(ctx, id)
		if err == nil {
			rec.Body = slices.Clone(bodies[id])
		}
		return rec, err
	}
}

func listsOwnBodies(_ *testing.T, f *flawed) {
	type name struct {
		id      backend.ID
		version uint64
	}
	var mu sync.Mutex
	own := make(map[name][]byte)
	f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
		page, err := f.Store.List(ctx, q)
		mu.Lock()
		defer mu.Unlock()
		for i, rec := range page.Records {
			if body, ok := own[name{rec.ID, rec.Version}]; ok {
				page.Records[i].Body = body
			}
			own[name{rec.ID, rec.Version}] = page.Records[i].Body
		}
		return page, err
	}
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		rec, err := f.Store.Get(ctx, id)
		mu.Lock()
		defer mu.Unlock()
		if body, ok := own[name{id, rec.Version}]; ok && err == nil {
			rec.Body = slices.Clone(body)
		}
		return rec, err
	}
}

// foldOwners keeps owners as they are, and lists by what fold makes of them.
func foldOwners(fold func(string) string) func(*testing.T, *flawed) {
	return func(_ *testing.T, f *flawed) {
		var mu sync.Mutex
		owners := make(map[backend.ID]string)
		whole := func(rec backend.Record) backend.Record {
			rec.Owner = owners[rec.ID]
			return rec
		}
		f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			owner, known := owners[rec.ID]
			if _, ifVersion := cond.Version(); known && ifVersion && owner != rec.Owner {
				return 0, backend.ErrInvalid
			}
			owner, rec.Owner = rec.Owner, fold(rec.Owner)
			if len(owner) > backend.MaxOwner {
				rec.Owner = owner // to be refused
			}
			v, err := f.Store.Put(ctx, rec, cond)
			if err == nil {
				owners[rec.ID] = owner
			}
			return v, err
		}
		f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
			mu.Lock()
			defer mu.Unlock()
			rec, err := f.Store.Get(ctx, id)
			if err == nil {
				rec = whole(rec)
			}
			return rec, err
		}
		f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
			mu.Lock()
			defer mu.Unlock()
			if folded := fold(q.Owner); folded != "" {
				q.Owner = folded
			}
			page, err := f.Store.List(ctx, q)
			for i, rec := range page.Records {
				page.Records[i] = whole(rec)
			}
			return page, err
		}
	}
}

// offsetCursors says "go on after so many records".
func offsetCursors(_ *testing.T, f *flawed) {
	f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
		limit, err := backend.CheckQuery(q)
		if err != nil {
			return backend.Page{}, err
		}
		list := sha256.Sum256(fmt.Appendf(nil, "%d %q %x %q %t %t", q.Kind, q.Owner, q.Parent, q.Label, q.Newest, q.ExpiresBefore != 0))
		name := base64.RawURLEncoding.EncodeToString(list[:6])
		offset := 0
		if q.After != "" {
			if n, err := fmt.Sscanf(string(q.After), name+".%d.", &offset); n != 1 || err != nil || q.After != backend.Cursor(fmt.Sprintf("%s.%d.", name, offset)) {
				return backend.Page{}, backend.ErrInvalid
			}
		}
		q.After, q.Limit = "", backend.MaxLimit
		var all []backend.Record
		for {
			page, err := f.Store.List(ctx, q)
			if err != nil {
				return backend.Page{}, err
			}
			all = append(all, page.Records...)
			if q.After = page.Next; q.After == "" {
				break
			}
		}
		all = all[min(offset, len(all)):]
		if len(all) <= limit {
			return backend.Page{Records: all}, nil
		}
		return backend.Page{Records: all[:limit], Next: backend.Cursor(fmt.Sprintf("%s.%d.", name, offset+limit))}, nil
	}
}

func noDeletesInFeed(_ *testing.T, f *flawed) {
	f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
		b.Changes = slices.DeleteFunc(b.Changes, func(c backend.Change) bool {
			_, err := f.Store.Get(context.Background(), c.ID)
			return errors.Is(err, backend.ErrNotFound)
		})
		return fn(b)
	}
}

func skipsAtResume(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	resumed := false
	f.token = func(from backend.Token) backend.Token {
		mu.Lock()
		defer mu.Unlock()
		resumed = from != nil
		return from
	}
	f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
		mu.Lock()
		if resumed && len(b.Changes) > 1 {
			b.Changes = b.Changes[1:]
			resumed = false
		}
		mu.Unlock()
		return fn(b)
	}
}

// heartbeats lets through the first Batch, each that tells something, and one in
// n others.
func heartbeats(f *flawed, n int) {
	f.begin = func() func(backend.Batch) bool {
		begun, empty := false, 0
		return func(b backend.Batch) bool {
			if !begun || len(b.Changes) > 0 || b.Reset {
				begun = true
				return true
			}
			empty++
			return empty%n == 0
		}
	}
}

func carelessPurge(_ *testing.T, f *flawed) {
	f.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
		if err := backend.CheckPurge(limit); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var due []backend.ID
		for kind := backend.Kind(1); kind <= 5; kind++ {
			page, err := f.Store.List(ctx, backend.Query{Kind: kind, Limit: backend.MaxLimit})
			if err != nil {
				return 0, err
			}
			for _, rec := range page.Records {
				if rec.PurgeAt != 0 && rec.PurgeAt <= before.UnixMilli() && len(due) < limit {
					due = append(due, rec.ID)
				}
			}
		}
		if len(due) > 0 {
			time.Sleep(200 * time.Microsecond)
		}
		n := 0
		for _, id := range due {
			if rec, err := f.Store.Get(ctx, id); err == nil && f.Store.Delete(ctx, id, rec.Version) == nil {
				n++
			}
		}
		return n, nil
	}
}
