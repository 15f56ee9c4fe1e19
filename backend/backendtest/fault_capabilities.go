package backendtest

import (
	"context"
	"time"

	"github.com/fobkit/fob/backend"
)

// A capability is a method, and a Go type has it or has it not; so that a Fault
// claims exactly what its store has, each capability is a layer of its own,
// and backend.As walks through them.
type (
	faultLister struct {
		*Fault
		next backend.Store
		to   backend.Lister
	}
	faultCounter struct {
		*Fault
		next backend.Store
		to   backend.Counter
	}
	faultBulk struct {
		*Fault
		next backend.Store
		to   backend.BulkReader
	}
	faultScanner struct {
		*Fault
		next backend.Store
		to   backend.Scanner
	}
	faultUsage struct {
		*Fault
		next backend.Store
		to   backend.UsageRecorder
	}
	faultPurger struct {
		*Fault
		next backend.Store
		to   backend.Purger
	}
	faultWatcher struct {
		*Fault
		next backend.Store
		to   backend.Watcher
	}
)

// offer puts a layer over inner for each capability that it has.
func (f *Fault) offer(inner backend.Store) backend.Store {
	top := inner
	if to, ok := backend.As[backend.Lister](inner); ok {
		top = faultLister{f, top, to}
	}
	if to, ok := backend.As[backend.Counter](inner); ok {
		top = faultCounter{f, top, to}
	}
	if to, ok := backend.As[backend.BulkReader](inner); ok {
		top = faultBulk{f, top, to}
	}
	if to, ok := backend.As[backend.Scanner](inner); ok {
		top = faultScanner{f, top, to}
	}
	if to, ok := backend.As[backend.UsageRecorder](inner); ok {
		top = faultUsage{f, top, to}
	}
	if to, ok := backend.As[backend.Purger](inner); ok {
		top = faultPurger{f, top, to}
	}
	if to, ok := backend.As[backend.Watcher](inner); ok {
		top = faultWatcher{f, top, to}
	}
	return top
}

func (f faultLister) Unwrap() backend.Store  { return f.next }
func (f faultCounter) Unwrap() backend.Store { return f.next }
func (f faultBulk) Unwrap() backend.Store    { return f.next }
func (f faultScanner) Unwrap() backend.Store { return f.next }
func (f faultUsage) Unwrap() backend.Store   { return f.next }
func (f faultPurger) Unwrap() backend.Store  { return f.next }
func (f faultWatcher) Unwrap() backend.Store { return f.next }

// List implements backend.Lister.
func (f faultLister) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	return call(ctx, f.Fault, OpList, backend.ID{}, func() (backend.Page, error) { return f.to.List(ctx, q) })
}

// Count implements backend.Counter.
func (f faultCounter) Count(ctx context.Context, q backend.Query, most int) (int, error) {
	return call(ctx, f.Fault, OpCount, backend.ID{}, func() (int, error) { return f.to.Count(ctx, q, most) })
}

// GetMany implements backend.BulkReader. It is an OpGet for each record, one after the
// other: the first that fails is the answer.
func (f faultBulk) GetMany(ctx context.Context, ids []backend.ID) (found []backend.Record, err error) {
	if err := backend.CheckGetMany(ids); err != nil { // each by itself would not be too many
		return nil, err
	}
	for _, id := range ids {
		recs, err := call(ctx, f.Fault, OpGet, id, func() ([]backend.Record, error) { return f.to.GetMany(ctx, []backend.ID{id}) })
		if err != nil {
			return nil, err
		}
		found = append(found, recs...)
	}
	return found, nil
}

// Scan implements backend.Scanner.
func (f faultScanner) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	_, err := call(ctx, f.Fault, OpScan, backend.ID{}, func() (struct{}, error) { return struct{}{}, f.to.Scan(ctx, kind, fn) })
	return err
}

// AddUsage implements backend.UsageRecorder.
func (f faultUsage) AddUsage(ctx context.Context, batch []backend.Usage) error {
	_, err := call(ctx, f.Fault, OpAddUsage, backend.ID{}, func() (struct{}, error) {
		return struct{}{}, f.to.AddUsage(ctx, batch)
	})
	return err
}

// Usage implements backend.UsageRecorder.
func (f faultUsage) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	return call(ctx, f.Fault, OpUsage, backend.ID{}, func() ([]backend.Usage, error) { return f.to.Usage(ctx, ids) })
}

// Purge implements backend.Purger.
func (f faultPurger) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	return call(ctx, f.Fault, OpPurge, backend.ID{}, func() (int, error) { return f.to.Purge(ctx, before, limit) })
}

// Watch implements backend.Watcher.
func (f faultWatcher) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	_, err := call(ctx, f.Fault, OpWatch, backend.ID{}, func() (struct{}, error) {
		return struct{}{}, f.to.Watch(ctx, from, func(b backend.Batch) error {
			_, err := call(ctx, f.Fault, OpBatch, backend.ID{}, func() (struct{}, error) { return struct{}{}, fn(b) })
			return err
		})
	})
	return err
}
