package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
)

// Query says which keys to list. The zero Query lists all. Every set field
// narrows the list.
type Query struct {
	// Subject lists the keys of one subject, by index. SubjectKind says of which
	// kind; zero means SubjectApplication. It means nothing without Subject.
	Subject     string
	SubjectKind SubjectKind
	// Status keeps what has this status now; zero keeps all.
	Status Status
	// ExpiringWithin keeps what expires within this time from now and has not
	// yet; by index, soonest first, where Subject is not set.
	ExpiringWithin time.Duration
	// UnusedSince keeps what was neither used nor issued at this time or later.
	UnusedSince time.Time
	// Tag keeps what has this tag.
	Tag string
	// Cursor continues a list: Page.Next of the page before, with the same query.
	Cursor Cursor
	// Limit is the most to return: 1 to 1,000; zero means 100.
	Limit int
}

// Cursor says where a list goes on. It is printable and safe in a URL, survives
// restarts, and grants nothing. "" is the start, and as Page.Next the end.
type Cursor string

// Page is one part of a list, in order of issue (or of expiry, see Query).
type Page struct {
	Credentials []Credential
	// Next is the Cursor of the next page; "" means that this is the last one. A
	// page may be short, even empty, and yet not be the last: one call looks at
	// a bounded number of records.
	Next Cursor
}

// listBudget bounds the records that one List looks at.
const listBudget = 2000

// List returns keys, a page at a time. A key that exists during the whole walk
// is listed exactly once, whatever happens meanwhile. A store that cannot list
// fails with errors.ErrUnsupported, a query that makes no sense with ErrInvalid,
// an unreadable record with ErrCorrupt.
func (m *Manager) List(ctx context.Context, q Query) (Page, error) {
	if m.life.Closed() {
		return Page{}, ErrClosed
	}
	page, err := m.list(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("fob: list: %w", err)
	}
	return page, nil
}

func (m *Manager) list(ctx context.Context, q Query) (Page, error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return Page{}, fmt.Errorf("the store keeps no lists: %w", errors.ErrUnsupported)
	}
	now := m.now()
	stored := backend.Query{Kind: record.Key, After: backend.Cursor(q.Cursor)}
	switch {
	case q.Limit < 0 || q.Limit > backend.MaxLimit:
		return Page{}, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, q.Limit, backend.MaxLimit)
	case checkTime("UnusedSince", q.UnusedSince) != nil:
		return Page{}, checkTime("UnusedSince", q.UnusedSince)
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
		// Never more than is still wanted, so that the store's cursor is ours.
		stored.Limit = limit - len(out.Credentials)
		at := m.engine.Now()
		page, err := lister.List(ctx, stored)
		if errors.Is(err, backend.ErrInvalid) {
			return Page{}, fmt.Errorf("%w: cursor", ErrInvalid)
		}
		if err != nil {
			return Page{}, errs.OfStore("read", err)
		}
		kept, err := m.keep(ctx, q, now, at, page.Records)
		if err != nil {
			return Page{}, err
		}
		out.Credentials = append(out.Credentials, kept...)
		out.Next, stored.After = Cursor(page.Next), page.Next
		if page.Next == "" {
			break
		}
		looked += len(page.Records)
	}
	return out, nil
}

// keep decodes records and keeps those that match.
func (m *Manager) keep(ctx context.Context, q Query, now time.Time, at clock.Moment, records []backend.Record) ([]Credential, error) {
	var kept []Credential
	for i := range records {
		m.saw(&records[i])
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

// withSubject decodes a key that was read in r, and adds what its subject's record says of
// it. It ends r.
func (m *Manager) withSubject(ctx context.Context, r *engine.Reading, rec *backend.Record) (*Key, error) {
	defer r.End()
	k, err := decodeKey(rec)
	if err != nil {
		return nil, err
	}
	state, asOf, err := m.subjectState(ctx, r, k.state.SubjectRef)
	if err != nil {
		return nil, errs.OfStore("read subject", err)
	}
	if k.state.Epoch < state.epoch {
		k.state.Status = keystate.Revoked
	}
	k.asOf.Store(r.Now.Wall(min(r.Now.Mono, asOf)))
	return k, nil
}

// Get returns a credential by its ID, read from the store. It is ErrNotFound if
// there is none.
func (m *Manager) Get(ctx context.Context, id ID) (Credential, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	k, err := m.currentKey(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("fob: get: %w", err)
	}
	return k, nil
}

// currentKey reads a key from the store, with what its subject's record says of it.
func (m *Manager) currentKey(ctx context.Context, id ID) (*Key, error) {
	r := m.engine.Reading(true, m.engine.Now())
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	return m.withSubject(ctx, r, &rec)
}

// KeyUpdate says what to change of a key; nil fields stay as they are.
type KeyUpdate struct {
	// IfVersion demands that the key is still at this version (Key.Version), else
	// ErrConflict. Zero changes whatever version is current: the fields set here
	// win over another change made at the same time, the others keep it.
	IfVersion uint64

	Name      *string
	Scopes    *Scopes
	Tags      *[]string
	NotBefore *time.Time // the zero time removes it
	// ExpiresAt is counted from now where a rotation repeats it as the successor's
	// lifetime; the zero time removes it.
	ExpiresAt *time.Time
}

// UpdateKey changes a key by compare-and-set and returns it as it now is. When
// it has returned, no Verify of this Manager that starts later sees the old
// scopes or times, be it of the key or of a token that it was exchanged for. A revoked key, or one of a subject that was revoked since, is
// ErrRevoked; a wrong value is ErrInvalid.
func (m *Manager) UpdateKey(ctx context.Context, id ID, u KeyUpdate) (*Key, error) {
	event, asOf := Event{Type: EventUpdated, ID: id}, clock.Millis(m.now())
	k, changed, err := m.updateKey(ctx, id, u)
	if k != nil {
		event.Subject = k.Subject()
	}
	if changed || err != nil {
		m.observeOutcome(event, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fob: update key: %w", err)
	}
	return keyOf(k, asOf), nil
}

func (m *Manager) updateKey(ctx context.Context, id ID, u KeyUpdate) (updated *keystate.State, changed bool, err error) {
	var scopes Scopes
	var tags []string
	if u.Scopes != nil {
		if scopes, err = u.Scopes.normal(); err != nil {
			return nil, false, err
		}
	}
	if u.Tags != nil {
		if tags, err = normalTags(*u.Tags); err != nil {
			return nil, false, err
		}
	}
	if u.Name != nil {
		if err := checkText("name", *u.Name, 0, maxName); err != nil {
			return nil, false, err
		}
	}
	for what, at := range map[string]*time.Time{"NotBefore": u.NotBefore, "ExpiresAt": u.ExpiresAt} {
		if at != nil {
			if err := checkTime(what, *at); err != nil {
				return nil, false, err
			}
		}
	}
	now := clock.Millis(m.now())
	updated, err = m.keystore.Edit(ctx, record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		before := *k
		if u.Name != nil {
			k.Name = strings.Clone(*u.Name)
		}
		if u.Scopes != nil {
			k.Scopes = scopes.String()
		}
		if u.Tags != nil {
			k.Tags = tags
		}
		if u.NotBefore != nil {
			k.NotBefore = clock.Millis(*u.NotBefore)
		}
		if u.ExpiresAt != nil && k.ExpiresAt != clock.Millis(*u.ExpiresAt) {
			k.ExpiresAt = clock.Millis(*u.ExpiresAt)
			k.Lifetime = 0
			if k.ExpiresAt != 0 {
				k.Lifetime = max(k.ExpiresAt-now, 1)
			}
		}
		if k.ExpiresAt != 0 && k.ExpiresAt <= k.NotBefore {
			return false, fmt.Errorf("%w: the key would never be valid", ErrInvalid)
		}
		differs := !k.Same(&before)
		changed = differs || unsure // after an unknown outcome it is this call's own
		// After an unknown outcome the version may have moved by this very call: then
		// nothing is left to change.
		if u.IfVersion != 0 && k.Version != u.IfVersion && (differs || !unsure) {
			return false, fmt.Errorf("%w: at version %d", ErrConflict, k.Version)
		}
		return differs, nil
	})
	return updated, changed, err
}
