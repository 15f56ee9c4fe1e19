package backendtest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// labelFlaws break the rules of labels, of the newest first, and of counts.
func labelFlaws() []flaw {
	last := backend.ID(slices.Repeat([]byte{0xff}, 16))
	return []flaw{
		{"labels are those of the first Put", []string{"labels", "model"}, labelHistory(func(h *history, rec backend.Record, err error) {
			if _, known := h.labels[rec.ID]; !known && err == nil {
				h.labels[rec.ID] = rec.Labels
			}
		}, true)},
		{"labels are never taken away", []string{"labels", "model"}, labelHistory(func(h *history, rec backend.Record, err error) {
			if err == nil {
				h.labels[rec.ID] = append(h.labels[rec.ID], rec.Labels...)
			}
		}, true)},
		{"labels of a Put that failed are listed", []string{"labels", "model"}, labelHistory(func(h *history, rec backend.Record, err error) {
			if err == nil || errors.Is(err, backend.ErrConflict) {
				h.labels[rec.ID] = rec.Labels
			}
		}, true)},
		{"labels are left behind by what removes the record", []string{"labels", "model"}, labelHistory(func(h *history, rec backend.Record, err error) {
			if err == nil && h.created {
				h.labels[rec.ID] = append(h.labels[rec.ID], rec.Labels...)
			} else if err == nil {
				h.labels[rec.ID] = rec.Labels
			}
		}, false)},
		{"labels are folded", []string{"labels"}, labelLists(byCreated, func(rec backend.Record, label string) bool {
			return slices.ContainsFunc(rec.Labels, func(l string) bool { return strings.EqualFold(l, label) })
		})},
		{"labels end at a NUL", []string{"labels", "model"}, labelLists(byCreated, func(rec backend.Record, label string) bool {
			return slices.ContainsFunc(rec.Labels, func(l string) bool {
				have, _, _ := strings.Cut(l, "\x00")
				want, _, _ := strings.Cut(label, "\x00")
				return have == want
			})
		})},
		{"labels that begin alike are one", []string{"listing", "labels", "model"}, labelLists(byCreated, func(rec backend.Record, label string) bool {
			return slices.ContainsFunc(rec.Labels, func(l string) bool { return strings.HasPrefix(l, label) })
		})},
		{"labels are compared by 255 bytes", []string{"labels"}, labelLists(byCreated, func(rec backend.Record, label string) bool {
			return slices.ContainsFunc(rec.Labels, func(l string) bool { return l[:min(len(l), 255)] == label[:min(len(label), 255)] })
		})},
		{"an owner is a label", []string{"listing", "labels", "model"}, labelLists(byCreated, func(rec backend.Record, label string) bool {
			return rec.Owner == label || slices.Contains(rec.Labels, label)
		})},
		{"records of one instant are in the order of their IDs, whatever the order", []string{"listing", "labels", "model"},
			labelLists(func(a, b backend.Record) int {
				return cmp.Or(cmp.Compare(a.Created, b.Created), bytes.Compare(b.ID[:], a.ID[:])) // in reverse of what is reversed
			}, func(rec backend.Record, label string) bool { return slices.Contains(rec.Labels, label) })},
		{"labels are split at a NUL", []string{"get-put-delete", "labels", "model"}, func(_ *testing.T, f *flawed) {
			f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
				rec, err := f.Store.Get(ctx, id)
				if len(rec.Labels) > 0 {
					rec.Labels = strings.Split(strings.Join(rec.Labels, "\x00"), "\x00")
				}
				return rec, err
			}
		}},
		{"a list by label looks up its records afterwards", []string{"labels"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				page, err := f.Store.List(ctx, q)
				if q.Label == "" {
					return page, err
				}
				for i := range page.Records {
					runtime.Gosched()
					if rec, err := f.Store.Get(ctx, page.Records[i].ID); err == nil {
						page.Records[i] = rec
					}
				}
				return page, err
			}
		}},
		{"labels are put in order for the caller", []string{"labels"}, func(_ *testing.T, f *flawed) {
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				labels := slices.Clone(rec.Labels)
				slices.Sort(labels)
				rec.Labels = slices.Compact(labels)
				return f.Store.Put(ctx, rec, cond)
			}
		}},
		{"few labels are enough", []string{"labels"}, func(_ *testing.T, f *flawed) {
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				if len(rec.Labels) > backend.MaxLabels-1 {
					return 0, backend.ErrInvalid
				}
				return f.Store.Put(ctx, rec, cond)
			}
		}},
		{"the store keeps the Labels it was given", []string{"labels"}, keepsLabels},
		{"lists have no labels", []string{"listing", "labels", "model"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				page, err := f.Store.List(ctx, q)
				withoutLabels(page.Records)
				return page, err
			}
		}},
		{"GetMany has no labels", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			f.getMany = func(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
				recs, err := f.Store.GetMany(ctx, ids)
				withoutLabels(recs)
				return recs, err
			}
		}},
		{"Scan has no labels", []string{"bulk"}, func(_ *testing.T, f *flawed) {
			f.scan = func(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
				return f.Store.Scan(ctx, kind, func(recs []backend.Record) error {
					withoutLabels(recs)
					return fn(recs)
				})
			}
		}},
		{"the newest first are so in each page", []string{"time", "listing", "labels", "model"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				newest := q.Newest && q.ExpiresBefore == 0
				q.Newest = q.Newest && q.ExpiresBefore != 0
				page, err := f.Store.List(ctx, q)
				if newest {
					slices.Reverse(page.Records)
				}
				return page, err
			}
		}},
		{"the newest first leave out the last place of all", []string{"labels"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				if q.Newest && q.After == "" {
					q.After = backend.NewCursor(q, math.MaxInt64, last)
				}
				return f.Store.List(ctx, q)
			}
		}},
		{"a cursor goes on in either order", []string{"listing"}, func(_ *testing.T, f *flawed) {
			f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
				other := q
				other.Newest = !q.Newest
				if at, id, err := q.After.Place(other); err == nil && q.After != "" && q.ExpiresBefore == 0 {
					q.After = backend.NewCursor(q, at, id)
				}
				return f.Store.List(ctx, q)
			}
		}},
		{"Count knows no most", []string{"count", "model"}, func(_ *testing.T, f *flawed) {
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				if most > 0 {
					most = math.MaxInt
				}
				return f.Store.Count(ctx, q, most)
			}
		}},
		{"Count stops where a Page does", []string{"count"}, func(_ *testing.T, f *flawed) {
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				return f.Store.Count(ctx, q, min(most, backend.MaxLimit))
			}
		}},
		{"Count takes a page for its list", []string{"count"}, func(_ *testing.T, f *flawed) {
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				q.After, q.Limit = "", 0
				return f.Store.Count(ctx, q, most)
			}
		}},
		{"Count is of the Kind, whatever the label", []string{"count", "model"}, func(_ *testing.T, f *flawed) {
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				if backend.CheckCount(q, most) == nil {
					q.Label = ""
				}
				return f.Store.Count(ctx, q, most)
			}
		}},
		{"Count includes what expires at the bound", []string{"count", "model"}, func(_ *testing.T, f *flawed) {
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				if q.ExpiresBefore > 0 {
					q.ExpiresBefore++
				}
				return f.Store.Count(ctx, q, most)
			}
		}},
		{"Count remembers", []string{"count", "model"}, func(_ *testing.T, f *flawed) {
			var mu sync.Mutex
			known := make(map[backend.Query]int)
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				n, err := f.Store.Count(ctx, q, most)
				mu.Lock()
				defer mu.Unlock()
				if old, ok := known[q]; ok && err == nil && old < most {
					return old, nil
				}
				if err == nil && n < most {
					known[q] = n
				}
				return n, err
			}
		}},
		{"Count misses what is being written", []string{"count"}, func(_ *testing.T, f *flawed) {
			var under atomic.Int64
			f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
				under.Add(1)
				defer under.Add(-1)
				if _, over := cond.Version(); over && len(rec.Labels) > 0 { // the others are quick: the suite makes many
					time.Sleep(100 * time.Microsecond)
				}
				return f.Store.Put(ctx, rec, cond)
			}
			f.count = func(ctx context.Context, q backend.Query, most int) (int, error) {
				n, err := f.Store.Count(ctx, q, most)
				return max(n-int(under.Load()), 0), err
			}
		}},
	}
}

func withoutLabels(recs []backend.Record) {
	for i := range recs {
		recs[i].Labels = nil
	}
}

func byCreated(a, b backend.Record) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), bytes.Compare(a.ID[:], b.ID[:]))
}

// labelLists lists by label the records for which has says so. An order other than byCreated
// is that of lists with the newest first, reversed.
func labelLists(order func(a, b backend.Record) int, has func(rec backend.Record, label string) bool) func(*testing.T, *flawed) {
	return func(_ *testing.T, f *flawed) {
		f.list = func(ctx context.Context, q backend.Query) (backend.Page, error) {
			limit, err := backend.CheckQuery(q)
			if err != nil || q.Label == "" {
				return f.Store.List(ctx, q)
			}
			at, id, err := q.After.Place(q)
			if err != nil {
				return backend.Page{}, err
			}
			place := backend.Record{ID: id, Created: at}
			var recs []backend.Record
			err = f.Store.Scan(ctx, q.Kind, func(some []backend.Record) error {
				recs = append(recs, some...)
				return nil
			})
			by := byCreated
			if q.Newest {
				by = func(a, b backend.Record) int { return order(b, a) }
			}
			recs = slices.DeleteFunc(recs, func(rec backend.Record) bool {
				return !has(rec, q.Label) || q.After != "" && by(rec, place) <= 0
			})
			slices.SortFunc(recs, by)
			if err != nil || len(recs) <= limit {
				return backend.Page{Records: recs}, err
			}
			end := recs[limit-1]
			return backend.Page{Records: recs[:limit], Next: backend.NewCursor(q, end.Created, end.ID)}, nil
		}
	}
}

// history is which labels a flawed store lists its records by.
type history struct {
	mu      sync.Mutex
	labels  map[backend.ID][]string
	created bool // the Put in question is IfAbsent
}

// labelHistory lists by the labels that put remembers of each Put; what is removed is
// forgotten if forgets.
func labelHistory(put func(h *history, rec backend.Record, err error), forgets bool) func(*testing.T, *flawed) {
	return func(t *testing.T, f *flawed) {
		h := &history{labels: make(map[backend.ID][]string)}
		labelLists(byCreated, func(rec backend.Record, label string) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Contains(h.labels[rec.ID], label)
		})(t, f)
		f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if _, err := f.Store.Get(ctx, rec.ID); errors.Is(err, backend.ErrNotFound) && forgets {
				delete(h.labels, rec.ID)
			}
			v, err := f.Store.Put(ctx, rec, cond)
			rec.Labels = slices.Clone(rec.Labels)
			h.created = cond.Absent()
			put(h, rec, err)
			return v, err
		}
	}
}

func keepsLabels(_ *testing.T, f *flawed) {
	var mu sync.Mutex
	labels := make(map[backend.ID][]string)
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		v, err := f.Store.Put(ctx, rec, cond)
		if err == nil {
			labels[rec.ID] = rec.Labels
		}
		return v, err
	}
	f.get = func(ctx context.Context, id backend.ID) (backend.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		rec, err := f.Store.Get(ctx, id)
		if err == nil {
			rec.Labels = slices.Clone(labels[id])
		}
		return rec, err
	}
}
