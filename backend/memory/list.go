package memory

import (
	"context"

	"github.com/fobkit/fob/backend"
)

// list names one index.
type list struct {
	by     byte // 'k'ind, 'o'wner, 'p'arent, 'l'abel, 'e'xpiry, or 'd'ue to be purged
	kind   backend.Kind
	name   string // the owner or the label
	parent backend.ID
}

// listsOf yields the indexes that a record is in, and where.
func listsOf(rec *backend.Record, yield func(list, int64)) {
	yield(list{by: 'k', kind: rec.Kind}, rec.Created)
	if rec.Owner != "" {
		yield(list{by: 'o', kind: rec.Kind, name: rec.Owner}, rec.Created)
	}
	if rec.Parent != (backend.ID{}) {
		yield(list{by: 'p', kind: rec.Kind, parent: rec.Parent}, rec.Created)
	}
	for _, label := range rec.Labels {
		yield(list{by: 'l', kind: rec.Kind, name: label}, rec.Created)
	}
	if rec.Expires != 0 {
		yield(list{by: 'e', kind: rec.Kind}, rec.Expires)
	}
	if rec.PurgeAt != 0 {
		yield(list{by: 'd'}, rec.PurgeAt)
	}
}

func (s *Store) enlist(rec *backend.Record) {
	listsOf(rec, func(l list, at int64) {
		ix := s.lists[l]
		if ix == nil {
			ix = new(index)
			s.lists[l] = ix
		}
		ix.insert(listPlace{at, rec.ID})
	})
}

func (s *Store) unlist(rec *backend.Record) {
	listsOf(rec, func(l list, at int64) {
		if s.lists[l].remove(listPlace{at, rec.ID}) {
			delete(s.lists, l)
		}
	})
}

// List implements backend.Lister.
func (s *Store) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	limit, err := backend.CheckQuery(q)
	if err != nil {
		return backend.Page{}, err
	}
	at, id, err := q.After.Place(q)
	if err != nil {
		return backend.Page{}, err
	}
	if err := s.ready(ctx, s.mu.RLocker()); err != nil {
		return backend.Page{}, err
	}
	defer s.mu.RUnlock()
	var page backend.Page
	ix := s.lists[listOf(&q)]
	if ix == nil {
		return page, nil
	}
	var last listPlace
	take := func(p listPlace) bool {
		if q.ExpiresBefore != 0 && p.at >= q.ExpiresBefore {
			return false
		}
		if len(page.Records) == limit {
			page.Next = backend.NewCursor(q, last.at, last.id)
			return false
		}
		page.Records = append(page.Records, copyOf(s.load(p.id)))
		last = p
		return true
	}
	switch from := (listPlace{at, id}); {
	case !q.Newest:
		ix.after(from, take)
	case q.After == "":
		ix.before(nil, take)
	default:
		ix.before(&from, take)
	}
	return page, nil
}

// listOf is the list that a query walks.
func listOf(q *backend.Query) list {
	switch {
	case q.Owner != "":
		return list{by: 'o', kind: q.Kind, name: q.Owner}
	case q.Parent != backend.ID{}:
		return list{by: 'p', kind: q.Kind, parent: q.Parent}
	case q.Label != "":
		return list{by: 'l', kind: q.Kind, name: q.Label}
	case q.ExpiresBefore != 0:
		return list{by: 'e', kind: q.Kind}
	}
	return list{by: 'k', kind: q.Kind}
}

// Count implements backend.Counter. Its price grows with the chunks of the list, and not
// with its records.
func (s *Store) Count(ctx context.Context, q backend.Query, most int) (int, error) {
	if err := backend.CheckCount(q, most); err != nil {
		return 0, err
	}
	if err := s.ready(ctx, s.mu.RLocker()); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	ix := s.lists[listOf(&q)]
	switch {
	case ix == nil:
		return 0, nil
	case q.ExpiresBefore != 0:
		return min(ix.countBelow(listPlace{at: q.ExpiresBefore}), most), nil
	}
	return min(ix.count(), most), nil
}
