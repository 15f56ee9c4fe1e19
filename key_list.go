package fob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// Query says what to list, keys ([Manager.List]) or sessions ([Manager.Sessions]). The zero
// Query lists all; every set field narrows the list. One of Subject, Parent, Tag, Account and
// Role, the first of them that is set, is looked up in an index (for Tag with Account there
// is one too); the others are compared.
type Query struct {
	// Subject lists what one subject has, and Account what all subjects of an account have. A
	// zero one narrows nothing: a handler that lists for one tenant has to refuse "" itself.
	Subject Subject
	Account Account
	// Parent lists the keys that were issued within a key (see [Key.Parent]), or the
	// sessions that began with it.
	Parent ID
	// Status keeps the keys that have this status now; zero keeps all.
	Status Status
	// ExpiringWithin keeps the keys that expire within this time from now and have not
	// expired yet. By itself it lists by an index, soonest expiry first.
	ExpiringWithin time.Duration
	// UnusedSince keeps the keys that were neither used nor issued at this time or later.
	UnusedSince time.Time
	// Tag and Role keep the keys that have this tag, or this role.
	Tag, Role string
	// Order is the order of the list. Zero lists the oldest first.
	Order Order
	// WithUsage reads how the keys were used, too ([Key.Usage]): one read for a page.
	WithUsage bool
	// Cursor continues a list: Page.Next of the page before, with the same query.
	Cursor Cursor
	// Limit is the most to return: 1 to 1,000; zero means 100.
	Limit int
}

// Order is the order of a list. The zero Order is that of issue, the oldest first.
type Order uint8

// The orders of a list.
const (
	NewestFirst Order = 1 + iota // the reverse
	// LastUsedFirst is in order of the last use, those that were never used last. All keys
	// that the index selects are read for each page: more than 10,000 are ErrInvalid, so
	// narrow the query to an account or a subject. A key that is used during the walk moves
	// to the front: it may be missed, or listed twice.
	LastUsedFirst
)

// Cursor says where a list goes on. It is printable and safe in a URL, survives restarts,
// and grants nothing. "" is the start of the list; in Page.Next it is the end.
type Cursor string

// Page is one part of a list.
type Page[T any] struct {
	Items []T `json:"items"` // not nil
	// Next is the Cursor of the next page; "" means that this is the last one. A
	// page may be short, even empty, and yet not be the last: one call looks at
	// a bounded number of records.
	Next Cursor `json:"next,omitempty"`
}

// listBudget bounds the records that one List looks at; each call counts for DefaultLimit at least.
const listBudget = 2000

// List returns keys, a page at a time. A key that exists during the whole walk
// is listed exactly once, whatever happens meanwhile. A store that cannot list
// fails with errors.ErrUnsupported, a query that makes no sense with ErrInvalid,
// an unreadable record with ErrCorrupt.
func (m *Manager) List(ctx context.Context, q Query) (Page[*Key], error) {
	if m.life.Closed() {
		return Page[*Key]{}, ErrClosed
	}
	page, err := m.listKeys(ctx, q)
	if err != nil {
		return Page[*Key]{}, fmt.Errorf("fob: list: %w", err)
	}
	return page, nil
}

func (m *Manager) listKeys(ctx context.Context, q Query) (out Page[*Key], err error) {
	w, err := m.walkKeys(q)
	if err != nil {
		return out, err
	}
	out.Items = []*Key{}
	limit := cmp.Or(q.Limit, backend.DefaultLimit)
	if q.Order == LastUsedFirst {
		out, err = w.lastUsed(ctx, limit)
	} else {
		for looked := 0; err == nil && len(out.Items) < limit && looked < listBudget && !w.over; {
			// Ask for no more than is still wanted, so that the store's cursor is ours too.
			var kept []*Key
			var n int
			kept, n, err = w.next(ctx, limit-len(out.Items))
			out.Items = append(out.Items, kept...)
			looked += max(n, backend.DefaultLimit)
		}
		out.Next = Cursor(w.stored.After)
	}
	if err != nil {
		return Page[*Key]{}, err
	}
	if q.WithUsage {
		return out, m.readUsage(ctx, out.Items)
	}
	return out, nil
}

// readUsage sets the usage of keys.
func (m *Manager) readUsage(ctx context.Context, keys []*Key) error {
	if len(keys) == 0 {
		return nil
	}
	ids := make([]ID, len(keys))
	for i, k := range keys {
		ids[i] = k.ID()
	}
	usage, err := m.usageOf(ctx, ids...)
	if err != nil {
		return err
	}
	for i, k := range keys {
		k.usage = &usage[i]
	}
	return nil
}

// keyWalk is a walk through the keys that match a query.
type keyWalk struct {
	m      *Manager
	q      Query
	now    time.Time
	lister backend.Lister
	stored backend.Query
	over   bool
}

func (m *Manager) walkKeys(q Query) (*keyWalk, error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return nil, fmt.Errorf("the store keeps no lists: %w", errors.ErrUnsupported)
	}
	w := &keyWalk{m: m, q: q, now: m.now(), lister: lister, stored: backend.Query{Kind: record.Key}}
	if err := q.check(); err != nil {
		return nil, err
	}
	q.index(&w.stored, w.now)
	if w.stored.After = backend.Cursor(q.Cursor); q.Order == LastUsedFirst {
		w.stored.After = "" // all of them are read for each page
	}
	return w, nil
}

// next reads at most limit records, and returns the keys among them that match, and how many
// records it has looked at.
func (w *keyWalk) next(ctx context.Context, limit int) (kept []*Key, looked int, err error) {
	at, ticket := w.m.engine.Now(), w.m.keys.Begin()
	recs, err := w.read(ctx, limit)
	if err != nil {
		return nil, 0, err
	}
	kept, err = w.m.matching(ctx, w.q, w.now, at, ticket, recs)
	return kept, len(recs), err
}

// read reads at most limit records.
func (w *keyWalk) read(ctx context.Context, limit int) ([]backend.Record, error) {
	w.stored.Limit = min(limit, backend.MaxLimit)
	page, err := w.lister.List(ctx, w.stored)
	if errors.Is(err, backend.ErrInvalid) {
		return nil, fmt.Errorf("%w: cursor", ErrInvalid)
	}
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	w.stored.After, w.over = page.Next, page.Next == ""
	return page.Records, nil
}

// maxWalk bounds the records that are looked at to sort a list, or to count one that no index
// counts.
const maxWalk = 10_000

// all returns all keys that match, if it has not to look at more than maxWalk records.
func (w *keyWalk) all(ctx context.Context) (keys []*Key, whole bool, err error) {
	for looked := 0; !w.over; {
		if looked >= maxWalk {
			return keys, false, nil
		}
		kept, n, err := w.next(ctx, backend.MaxLimit)
		if err != nil {
			return nil, false, err
		}
		keys, looked = append(keys, kept...), looked+n
	}
	return keys, true, nil
}

// lastUsed returns a page in the order LastUsedFirst.
func (w *keyWalk) lastUsed(ctx context.Context, limit int) (out Page[*Key], err error) {
	out.Items = []*Key{}
	place := w.stored
	after, id, err := backend.Cursor(w.q.Cursor).Place(place)
	if err != nil {
		return out, fmt.Errorf("%w: cursor", ErrInvalid)
	}
	keys, whole, err := w.all(ctx)
	if err != nil {
		return out, err
	}
	if !whole {
		return out, fmt.Errorf("%w: more than %d keys to sort by their last use", ErrInvalid, maxWalk)
	}
	if err := w.m.readUsage(ctx, keys); err != nil {
		return out, err
	}
	ahead := func(used int64, one ID, than int64, other ID) int {
		return cmp.Or(cmp.Compare(than, used), slices.Compare(one[:], other[:]))
	}
	used := func(k *Key) int64 { return clock.Millis(k.usage.LastUsedAt) }
	slices.SortFunc(keys, func(a, b *Key) int { return ahead(used(a), a.ID(), used(b), b.ID()) })
	for _, k := range keys {
		if w.q.Cursor != "" && ahead(used(k), k.ID(), after, ID(id)) <= 0 {
			continue
		}
		if len(out.Items) == limit {
			last := out.Items[limit-1]
			out.Next = Cursor(backend.NewCursor(place, used(last), backend.ID(last.ID())))
			break
		}
		if out.Items = append(out.Items, k); !w.q.WithUsage {
			defer func() { k.usage = nil }()
		}
	}
	return out, nil
}

// maxCount is how far Count counts.
const maxCount = 1_000_000

// Count returns how many keys match a query; its Cursor, Limit and Order mean nothing. exact
// is false if there are that many at least: more than a million, or, for what no index
// counts, more than were found among the first 10,000 records. Its errors are those of
// [Manager.List].
func (m *Manager) Count(ctx context.Context, q Query) (n int, exact bool, err error) {
	if m.life.Closed() {
		return 0, false, ErrClosed
	}
	q.Cursor, q.Limit, q.Order, q.WithUsage = "", 0, 0, false
	w, err := m.walkKeys(q)
	if err != nil {
		return 0, false, fmt.Errorf("fob: count: %w", err)
	}
	if counter, ok := backend.As[backend.Counter](m.store); ok && q.isIndex() {
		n, err := counter.Count(ctx, w.stored, maxCount)
		if err == nil {
			return n, n < maxCount, nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return 0, false, fmt.Errorf("fob: count: %w", errs.OfStore("read", err))
		}
	}
	keys, whole, err := w.all(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("fob: count: %w", err)
	}
	return len(keys), whole, nil
}

// matching decodes records and keeps those that match.
func (m *Manager) matching(ctx context.Context, q Query, now time.Time, at clock.Moment, ticket cache.Ticket, records []backend.Record) ([]*Key, error) {
	var kept []*Key
	for i := range records {
		m.saw(records[i])
		k, err := m.withHolders(ctx, m.engine.Reading(false, at), &records[i])
		if err == nil && m.keys.Changed(ticket, keyRefs(&k.state)...) {
			k, err = m.currentKey(ctx, k.ID())
		}
		if errors.Is(err, ErrNotFound) {
			continue // it was purged just now
		}
		if err != nil {
			return nil, err
		}
		if q.matches(k, now) {
			kept = append(kept, k)
		}
	}
	if q.UnusedSince.IsZero() || len(kept) == 0 {
		return kept, nil
	}
	ids := make([]ID, len(kept))
	for i, c := range kept {
		ids[i] = c.ID()
	}
	usage, err := m.usageOf(ctx, ids...)
	if err != nil {
		return nil, err
	}
	unused := kept[:0]
	for i, c := range kept {
		if usage[i].LastUsedAt.Before(q.UnusedSince) {
			unused = append(unused, c)
		}
	}
	return unused, nil
}

func (q *Query) matches(k *Key, now time.Time) bool {
	if q.Status != 0 && k.StatusAt(now) != q.Status {
		return false
	}
	if q.ExpiringWithin > 0 {
		ends := k.state.EndsAt()
		if ends == 0 || ends <= clock.Millis(now) || ends > clock.Millis(now.Add(q.ExpiringWithin)) {
			return false
		}
	}
	if !q.UnusedSince.IsZero() && !k.IssuedAt().Before(q.UnusedSince) {
		return false
	}
	switch {
	case q.Subject != Subject{} && k.Subject() != q.Subject,
		q.Account != "" && k.Subject().Account != q.Account,
		!q.Parent.IsZero() && k.Parent() != q.Parent,
		q.Role != "" && !slices.Contains(k.state.Roles, q.Role),
		q.Tag != "" && !slices.Contains(k.state.Tags, q.Tag):
		return false
	}
	return true
}

// check refuses a query that makes no sense.
func (q *Query) check() error {
	switch {
	case q.Limit < 0 || q.Limit > backend.MaxLimit:
		return fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, q.Limit, backend.MaxLimit)
	case q.ExpiringWithin < 0:
		return fmt.Errorf("%w: ExpiringWithin %v", ErrInvalid, q.ExpiringWithin)
	case q.Status > StatusRevoked:
		return fmt.Errorf("%w: status %d", ErrInvalid, q.Status)
	case q.Order > LastUsedFirst:
		return fmt.Errorf("%w: order %d", ErrInvalid, q.Order)
	case q.Subject != Subject{} && q.Subject.check() != nil:
		return q.Subject.check()
	}
	return cmp.Or(limits.CheckTime("UnusedSince", q.UnusedSince), q.Account.check(0),
		limits.CheckText("tag", q.Tag, 0, maxSubject), limits.CheckText("role", q.Role, 0, maxSubject))
}

// index chooses the index for q.
func (q *Query) index(stored *backend.Query, now time.Time) {
	stored.Newest = q.Order == NewestFirst
	switch {
	case q.Subject != Subject{}:
		stored.Owner = q.Subject.owner()
	case !q.Parent.IsZero():
		stored.Parent = backend.ID(q.Parent)
	case q.Tag != "":
		stored.Label = record.TagLabel(string(q.Account), q.Tag)
	case q.Account != "":
		stored.Label = record.AccountLabel(string(q.Account))
	case q.Role != "":
		stored.Label = record.RoleLabel(q.Role)
	case q.ExpiringWithin > 0 && q.Order == 0:
		stored.ExpiresBefore = clock.Millis(now.Add(q.ExpiringWithin)) + 1 // up to and including
	}
}

// isIndex reports whether the index that is chosen for q selects nothing but what q does.
func (q Query) isIndex() bool {
	switch {
	case q.Subject != Subject{}:
		q.Subject = Subject{}
	case !q.Parent.IsZero():
		q.Parent = ID{}
	case q.Tag != "":
		q.Tag, q.Account = "", ""
	case q.Account != "":
		q.Account = ""
	case q.Role != "":
		q.Role = ""
	}
	return q == Query{}
}
