package fob

import (
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

// Query says which keys to list. The zero Query lists all; every set field narrows the
// list.
type Query struct {
	// Subject lists the keys of one subject, by index. SubjectKind says of which
	// kind; zero means SubjectApplication. It means nothing without Subject.
	Subject     string
	SubjectKind SubjectKind
	// Status keeps the keys that have this status now; zero keeps all.
	Status Status
	// ExpiringWithin keeps the keys that expire within this time from now and have not
	// expired yet. Without Subject they are listed by an index, soonest expiry first.
	ExpiringWithin time.Duration
	// UnusedSince keeps the keys that were neither used nor issued at this time or later.
	UnusedSince time.Time
	// Tag keeps the keys that have this tag.
	Tag string
	// Cursor continues a list: Page.Next of the page before, with the same query.
	Cursor Cursor
	// Limit is the most to return: 1 to 1,000; zero means 100.
	Limit int
}

// Cursor says where a list goes on. It is printable and safe in a URL, survives restarts,
// and grants nothing. "" is the start of the list; in Page.Next it is the end.
type Cursor string

// Page is one part of a list, in order of issue (or of expiry, see Query).
type Page struct {
	Credentials []Credential
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
func (m *Manager) List(ctx context.Context, q Query) (Page, error) {
	if m.life.Closed() {
		return Page{}, ErrClosed
	}
	page, err := m.listKeys(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("fob: list: %w", err)
	}
	return page, nil
}

func (m *Manager) listKeys(ctx context.Context, q Query) (Page, error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return Page{}, fmt.Errorf("the store keeps no lists: %w", errors.ErrUnsupported)
	}
	now := m.now()
	stored := backend.Query{Kind: record.Key, After: backend.Cursor(q.Cursor)}
	switch {
	case q.Limit < 0 || q.Limit > backend.MaxLimit:
		return Page{}, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, q.Limit, backend.MaxLimit)
	case limits.CheckTime("UnusedSince", q.UnusedSince) != nil:
		return Page{}, limits.CheckTime("UnusedSince", q.UnusedSince)
	case q.ExpiringWithin < 0:
		return Page{}, fmt.Errorf("%w: ExpiringWithin %v", ErrInvalid, q.ExpiringWithin)
	case q.Status > StatusRevoked:
		return Page{}, fmt.Errorf("%w: status %d", ErrInvalid, q.Status)
	case q.Subject != "":
		kind := max(q.SubjectKind, SubjectApplication)
		if err := checkSubject(q.Subject, kind); err != nil {
			return Page{}, err
		}
		stored.Owner = owner(kind, q.Subject)
	case q.ExpiringWithin > 0:
		stored.ExpiresBefore = clock.Millis(now.Add(q.ExpiringWithin)) + 1 // up to and including
	}
	limit := q.Limit
	if limit == 0 {
		limit = backend.DefaultLimit
	}
	var out Page
	for looked := 0; len(out.Credentials) < limit && looked < listBudget; {
		// Ask for no more than is still wanted, so that the store's cursor is ours too.
		stored.Limit = limit - len(out.Credentials)
		at := m.engine.Now()
		page, err := lister.List(ctx, stored)
		if errors.Is(err, backend.ErrInvalid) {
			return Page{}, fmt.Errorf("%w: cursor", ErrInvalid)
		}
		if err != nil {
			return Page{}, errs.OfStore("read", err)
		}
		kept, err := m.matching(ctx, q, now, at, page.Records)
		if err != nil {
			return Page{}, err
		}
		out.Credentials = append(out.Credentials, kept...)
		out.Next, stored.After = Cursor(page.Next), page.Next
		if page.Next == "" {
			break
		}
		looked += max(len(page.Records), backend.DefaultLimit)
	}
	return out, nil
}

// matching decodes records and keeps those that match.
func (m *Manager) matching(ctx context.Context, q Query, now time.Time, at clock.Moment, records []backend.Record) ([]Credential, error) {
	var kept []Credential
	for i := range records {
		m.saw(records[i])
		k, err := m.withSubject(ctx, m.engine.Reading(false, at), &records[i])
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
	return q.Tag == "" || slices.Contains(k.state.Tags, q.Tag)
}
