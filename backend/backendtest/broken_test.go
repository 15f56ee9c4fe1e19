package backendtest_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
)

// flawed is the memory store with some methods replaced.
type flawed struct {
	*memory.Store
	get      func(ctx context.Context, id backend.ID) (backend.Record, error)
	put      func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error)
	remove   func(ctx context.Context, id backend.ID, version uint64) error
	list     func(ctx context.Context, q backend.Query) (backend.Page, error)
	count    func(ctx context.Context, q backend.Query, most int) (int, error)
	getMany  func(ctx context.Context, ids []backend.ID) ([]backend.Record, error)
	scan     func(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error
	addUsage func(ctx context.Context, batch []backend.Usage) error
	usage    func(ctx context.Context, ids []backend.ID) ([]backend.Usage, error)
	purge    func(ctx context.Context, before time.Time, limit int) (int, error)
	batch    func(b backend.Batch, fn func(backend.Batch) error) error // in place of fn
	begin    func() func(backend.Batch) bool                           // for each Watch, which of its batches are let through
	token    func(backend.Token) backend.Token                         // what Watch is really given
	close    func() error
}

func (f *flawed) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if f.get != nil {
		return f.get(ctx, id)
	}
	return f.Store.Get(ctx, id)
}

func (f *flawed) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if f.put != nil {
		return f.put(ctx, rec, cond)
	}
	return f.Store.Put(ctx, rec, cond)
}

func (f *flawed) Delete(ctx context.Context, id backend.ID, version uint64) error {
	if f.remove != nil {
		return f.remove(ctx, id, version)
	}
	return f.Store.Delete(ctx, id, version)
}

func (f *flawed) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	if f.list != nil {
		return f.list(ctx, q)
	}
	return f.Store.List(ctx, q)
}

func (f *flawed) Count(ctx context.Context, q backend.Query, most int) (int, error) {
	if f.count != nil {
		return f.count(ctx, q, most)
	}
	return f.Store.Count(ctx, q, most)
}

func (f *flawed) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if f.getMany != nil {
		return f.getMany(ctx, ids)
	}
	return f.Store.GetMany(ctx, ids)
}

func (f *flawed) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if f.scan != nil {
		return f.scan(ctx, kind, fn)
	}
	return f.Store.Scan(ctx, kind, fn)
}

func (f *flawed) AddUsage(ctx context.Context, batch []backend.Usage) error {
	if f.addUsage != nil {
		return f.addUsage(ctx, batch)
	}
	return f.Store.AddUsage(ctx, batch)
}

func (f *flawed) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	if f.usage != nil {
		return f.usage(ctx, ids)
	}
	return f.Store.Usage(ctx, ids)
}

func (f *flawed) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if f.purge != nil {
		return f.purge(ctx, before, limit)
	}
	return f.Store.Purge(ctx, before, limit)
}

func (f *flawed) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	if f.token != nil {
		from = f.token(from)
	}
	if f.begin != nil {
		through := f.begin()
		return f.Store.Watch(ctx, from, func(b backend.Batch) error {
			if !through(b) {
				return nil
			}
			return fn(b)
		})
	}
	if f.batch == nil {
		return f.Store.Watch(ctx, from, fn)
	}
	return f.Store.Watch(ctx, from, func(b backend.Batch) error { return f.batch(b, fn) })
}

func (f *flawed) Close() error {
	if f.close != nil {
		return f.close()
	}
	return f.Store.Close()
}

// flaw is one way to break the contract, and the groups that must notice, no
// others.
type flaw struct {
	name   string
	groups []string
	make   func(t *testing.T, f *flawed)
}

// flaws has one line for each; what takes more than a few lines is below.
func flaws() []flaw {
	return []flaw{
		{"there is a blind write", []string{"get-put-delete"}, func(_ *testing.T, f *flawed) {
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				if cond == (backend.Cond{}) {
					if old, err := f.Store.Get(ctx, rec.ID); err == nil {
						cond = backend.IfVersion(old.Version)
					} else {
						cond = backend.IfAbsent()
					}
				}
				return f.Store.Put(ctx, rec, cond)
			}
		}},
		{"a Put may change Parent", []string{"get-put-delete"}, mutableParent},
		{"versions begin anew after a Delete", []string{"get-put-delete", "model"}, versionsBeginAnew},
		{"a Get after an overwrite is stale once", []string{
			"get-put-delete", "cas", "memory", "time", "labels", "sweep", "model"}, staleOnce},
		{"the condition is looked at before the lock is taken", []string{"cas"}, checkThenWrite},
		{"concurrent Gets share one that began before them", []string{"cas"}, sharedGets},
		{"the store keeps the Body it was given", []string{"memory"}, keepsBody},
		{"a list hands out the store's own Bodies", []string{"memory"}, listsOwnBodies},
		{"times are floating point", []string{"time", "labels"}, func(_ *testing.T, f *flawed) {
			float := func(at int64) int64 { // 53 bits, toward zero
				if at > 1<<53 {
					return at &^ 1023
				}
				return at
			}
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				rec.Created, rec.Expires, rec.PurgeAt = float(rec.Created), float(rec.Expires), float(rec.PurgeAt)
				return f.Store.Put(ctx, rec, cond)
			}
		}},
		{"Purge rounds its instant up", []string{"time"}, func(_ *testing.T, f *flawed) {
			f.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
				return f.Store.Purge(ctx, before.Add(time.Millisecond-1), limit)
			}
		}},
		{"owners are folded", []string{"identifiers"}, foldOwners(strings.ToLower)},
		{"owners end at a NUL", []string{"identifiers"}, foldOwners(func(owner string) string {
			head, _, _ := strings.Cut(owner, "\x00")
			return head
		})},
		{"cursors skip what was created in the same millisecond", []string{"listing", "labels", "model"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				page, err := f.Store.List(ctx, q)
				if page.Next != "" && q.ExpiresBefore == 0 && !q.Newest {
					last := page.Records[len(page.Records)-1]
					page.Next = backend.NewCursor(q, last.Created, backend.ID(slices.Repeat([]byte{0xff}, 16)))
				}
				return page, err
			}
		}},
		{"cursors count records", []string{"listing", "labels"}, offsetCursors},
		{"contexts are ignored", []string{"context"}, func(_ *testing.T, f *flawed) {
			f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
				return f.Store.Get(context.WithoutCancel(ctx), id)
			}
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				return f.Store.Put(context.WithoutCancel(ctx), rec, cond)
			}
		}},
		{"a Put that was applied answers the context's error", []string{"context"}, func(_ *testing.T, f *flawed) {
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				v, err := f.Store.Put(ctx, rec, cond)
				runtime.Gosched()
				return v, errors.Join(err, ctx.Err())
			}
		}},
		{"Close leaves a goroutine", []string{"close"}, func(t *testing.T, _ *flawed) {
			end := make(chan struct{})
			t.Cleanup(func() { close(end) })
			go func() { <-end }()
		}},
		{"Close closes nothing", []string{"close"}, func(_ *testing.T, f *flawed) {
			f.close = func() error { return nil }
		}},
		{"Close fails the second time", []string{"close"}, func(_ *testing.T, f *flawed) {
			var closed atomic.Bool
			f.close = func() error {
				if closed.Swap(true) {
					return backend.ErrClosed
				}
				return f.Store.Close()
			}
		}},
		{"the feed leaves out deletes", []string{"feed"}, noDeletesInFeed},
		{"a resumed feed skips a change", []string{"feed"}, skipsAtResume},
		{"a token of another store is taken for none", []string{"feed"}, func(_ *testing.T, f *flawed) {
			var mu sync.Mutex
			var mine []byte // what the tokens of this store begin with
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				mu.Lock()
				mine = slices.Clone(b.Token[:8])
				mu.Unlock()
				return fn(b)
			}
			f.token = func(from backend.Token) backend.Token {
				mu.Lock()
				defer mu.Unlock()
				if len(from) == 16 && slices.Equal(from[:8], mine) {
					return from
				}
				return nil
			}
		}},
		{"a slow consumer stops the writers", []string{"feed"}, func(_ *testing.T, f *flawed) {
			var gate sync.RWMutex
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				gate.RLock()
				defer gate.RUnlock()
				return fn(b)
			}
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				gate.Lock()
				defer gate.Unlock()
				return f.Store.Put(ctx, rec, cond)
			}
		}},
		{"no heartbeat", []string{"feed"}, func(_ *testing.T, f *flawed) { heartbeats(f, 1<<30) }},
		{"a slow heartbeat", []string{"feed"}, func(_ *testing.T, f *flawed) { heartbeats(f, 3) }},
		{"AsOf is taken after the state", []string{"feed"}, func(_ *testing.T, f *flawed) {
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				time.Sleep(100 * time.Microsecond)
				b.AsOf = time.Now()
				return fn(b)
			}
		}},
		{"AsOf is a wall-clock time", []string{"feed"}, func(_ *testing.T, f *flawed) {
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				b.AsOf = b.AsOf.Round(0)
				return fn(b)
			}
		}},
		{"every Batch is a Reset", []string{"feed"}, func(_ *testing.T, f *flawed) {
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				b.Reset = true
				return fn(b)
			}
		}},
		{"the feed tells of the versions before", []string{"feed"}, func(_ *testing.T, f *flawed) {
			f.batch = func(b backend.Batch, fn func(backend.Batch) error) error {
				b.Changes = slices.Clone(b.Changes)
				for i := range b.Changes {
					b.Changes[i].Version--
				}
				return fn(b)
			}
		}},
		{"GetMany stops at what it does not find", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			f.getMany = func(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
				for i, id := range ids {
					if _, err := f.Store.Get(ctx, id); errors.Is(err, backend.ErrNotFound) {
						ids = ids[:i]
						break
					}
				}
				return f.Store.GetMany(ctx, ids)
			}
		}},
		{"GetMany remembers what it has read", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			var mu sync.Mutex
			known := make(map[backend.ID]backend.Record)
			f.getMany = func(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
				found, err := f.Store.GetMany(ctx, ids)
				mu.Lock()
				defer mu.Unlock()
				for i, rec := range found {
					if old, ok := known[rec.ID]; ok {
						found[i] = old
					}
					known[rec.ID] = found[i]
				}
				return found, err
			}
		}},
		{"Scan leaves out the last of each part", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			f.scan = func(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
				return f.Store.Scan(ctx, kind, func(recs []backend.Record) error {
					if len(recs) > 1 {
						recs = recs[:len(recs)-1]
					}
					return fn(recs)
				})
			}
		}},
		{"Scan goes on although fn has failed", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			f.scan = func(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
				return f.Store.Scan(ctx, kind, func(recs []backend.Record) error {
					_ = fn(recs)
					return nil
				})
			}
		}},
		{"Purge takes its limit for advice", []string{"sweep"}, func(_ *testing.T, f *flawed) {
			f.purge = func(ctx context.Context, before time.Time, limit int) (int, error) {
				if err := backend.CheckPurge(limit); err != nil {
					return 0, err
				}
				return f.Store.Purge(ctx, before, backend.MaxLimit)
			}
		}},
		{"Purge looks before it deletes, and not again", []string{"sweep"}, carelessPurge},
		{"what is urgent is refused", []string{"sweep"}, refusesUrgent},
		{"usage moves backward", []string{"usage", "model"}, func(_ *testing.T, f *flawed) {
			var mu sync.Mutex
			last := make(map[backend.ID]int64)
			f.addUsage = func(ctx context.Context, batch []backend.Usage) error {
				err := f.Store.AddUsage(ctx, batch)
				mu.Lock()
				defer mu.Unlock()
				for _, u := range batch {
					if err == nil {
						last[u.ID] = u.Last
					}
				}
				return err
			}
			f.usage = func(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
				got, err := f.Store.Usage(ctx, ids)
				mu.Lock()
				defer mu.Unlock()
				for i := range got {
					if got[i].Last != 0 {
						got[i].Last = last[got[i].ID]
					}
				}
				return got, err
			}
		}},
		{"half a batch of usage is added", []string{"usage"}, func(_ *testing.T, f *flawed) {
			f.addUsage = func(ctx context.Context, batch []backend.Usage) error {
				half := len(batch) / 2
				err := f.Store.AddUsage(ctx, batch[:half])
				if len(batch) > 50 {
					time.Sleep(200 * time.Microsecond)
				}
				if err == nil {
					err = f.Store.AddUsage(ctx, batch[half:])
				}
				return err
			}
		}},
		{"usage is added and the context's error answered", []string{"usage"}, lateUsage},
		{"what is purged when it expires is in no list by expiry", []string{"model"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				page, err := f.Store.List(ctx, q)
				if q.ExpiresBefore != 0 && len(page.Records) > 1 {
					page.Records = slices.DeleteFunc(page.Records, func(r backend.Record) bool { return r.Expires == r.PurgeAt })
				}
				return page, err
			}
		}},
	}
}
