package fob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// Query says what to list, keys ([Manager.List]) or sessions ([Manager.Sessions]). The zero
// Query lists all; every set field narrows the list. One of Subject, Account, Parent, Tag,
// Role and Status (StatusDisabled, StatusRevoked) is looked up in an index, the first of them
// that is set; the others are compared. Tag together with Account is an index too.
type Query struct {
	// Subject lists what one subject has, and Account what all subjects of an account have.
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
	// Order is the order of the list. The zero Order lists the oldest first.
	Order Order
	// WithUsage reads how the keys were used, too ([Key.Usage]): one read for a page.
	WithUsage bool
	// Cursor continues a list: Page.Next of the page before, with the same query.
	Cursor Cursor
	// Limit is the most to return: 1 to 1,000; zero means 100.
	Limit int
}

// Order is the order of a list.
type Order uint8

// The orders of a list.
const (
	OldestFirst Order = iota // in order of issue
	NewestFirst              // the reverse
	// LastUsedFirst is in order of the last use, those that were never used last. It is for
	// lists of at most 10,000 keys, which are all read for it: narrow the query to an account
	// or a subject. A longer list is ErrInvalid.
	LastUsedFirst
)

// Cursor says where a list goes on. It is printable and safe in a URL, survives restarts,
// and grants nothing. "" is the start of the list; in Page.Next it is the end.
type Cursor string

// Page is one part of a list.
type Page[T any] struct {
	Items []T
	// Next is the Cursor of the next page; "" means that this is the last one. A
	// page may be short, even empty, and yet not be the last: one call looks at
	// a bounded number of records.
	Next Cursor
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

func (m *Manager) listKeys(ctx context.Context, q Query) (Page[*Key], error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return Page[*Key]{}, fmt.Errorf("the store keeps no lists: %w", errors.ErrUnsupported)
	}
	now := m.now()
	stored := backend.Query{Kind: record.Key, After: backend.Cursor(q.Cursor)}
	switch {
	case q.Limit < 0 || q.Limit > backend.MaxLimit:
		return Page[*Key]{}, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, q.Limit, backend.MaxLimit)
	case limits.CheckTime("UnusedSince", q.UnusedSince) != nil:
		return Page[*Key]{}, limits.CheckTime("UnusedSince", q.UnusedSince)
	case q.ExpiringWithin < 0:
		return Page[*Key]{}, fmt.Errorf("%w: ExpiringWithin %v", ErrInvalid, q.ExpiringWithin)
	case q.Status > StatusRevoked:
		return Page[*Key]{}, fmt.Errorf("%w: status %d", ErrInvalid, q.Status)
	}
	if err := q.index(&stored, now); err != nil {
		return Page[*Key]{}, err
	}
	limit := q.Limit
	if limit == 0 {
		limit = backend.DefaultLimit
	}
	var out Page[*Key]
	for looked := 0; len(out.Items) < limit && looked < listBudget; {
		// Ask for no more than is still wanted, so that the store's cursor is ours too.
		stored.Limit = limit - len(out.Items)
		at := m.engine.Now()
		page, err := lister.List(ctx, stored)
		if errors.Is(err, backend.ErrInvalid) {
			return Page[*Key]{}, fmt.Errorf("%w: cursor", ErrInvalid)
		}
		if err != nil {
			return Page[*Key]{}, errs.OfStore("read", err)
		}
		kept, err := m.matching(ctx, q, now, at, page.Records)
		if err != nil {
			return Page[*Key]{}, err
		}
		out.Items = append(out.Items, kept...)
		out.Next, stored.After = Cursor(page.Next), page.Next
		if page.Next == "" {
			break
		}
		looked += max(len(page.Records), backend.DefaultLimit)
	}
	return out, nil
}

// matching decodes records and keeps those that match.
func (m *Manager) matching(ctx context.Context, q Query, now time.Time, at clock.Moment, records []backend.Record) ([]*Key, error) {
	var kept []*Key
	for i := range records {
		m.saw(records[i])
		k, err := m.withHolders(ctx, m.engine.Reading(false, at), &records[i])
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

// index chooses the index for q.
func (q *Query) index(stored *backend.Query, now time.Time) error {
	stored.Newest = q.Order == NewestFirst
	if q.Subject != (Subject{}) {
		if err := q.Subject.check(); err != nil {
			return err
		}
	}
	if err := cmp.Or(q.Account.check(0), limits.CheckText("tag", q.Tag, 0, maxSubject), limits.CheckText("role", q.Role, 0, maxSubject)); err != nil {
		return err
	}
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
	case q.ExpiringWithin > 0 && q.Order == OldestFirst:
		stored.ExpiresBefore = clock.Millis(now.Add(q.ExpiringWithin)) + 1 // up to and including
	}
	return nil
}
