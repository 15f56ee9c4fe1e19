package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
)

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	rec.Body = append([]byte{}, rec.Body...) // the writer may outlast this call; and nil would be NULL
	rec.Labels = slices.Clone(rec.Labels)
	size := 512 + 4*len(rec.Owner) + len(rec.Body)
	for _, label := range rec.Labels {
		size += 128 + 2*len(label) // in the record, and in the list
	}
	var version uint64
	o := &op{Size: size, Urgent: backend.IsUrgent(ctx)}
	o.Apply = func(b *batch) (err error) {
		version, err = b.put(&rec, cond)
		return err
	}
	if err := s.queue.Submit(ctx, o); err != nil {
		return 0, err
	}
	return version, nil
}

func (b *batch) put(rec *backend.Record, cond backend.Cond) (uint64, error) {
	var parent any // NULL
	if rec.Parent != (backend.ID{}) {
		parent = rec.Parent[:]
	}
	version := b.seq + 1
	args := []any{rec.ID[:], int64(rec.Kind), []byte(rec.Owner), parent, rec.Created, rec.Expires, rec.PurgeAt, int64(version), rec.Body, encodeLabels(rec.Labels)}
	text := sqlInsert
	if v, ok := cond.Version(); ok {
		if v > math.MaxInt64 {
			return 0, b.differs(rec.ID, v) // no record has it
		}
		text, args = sqlUpdate, append(args, int64(v))
	}
	n, err := b.c.run(text, args...)
	if err == nil && n == 0 && !cond.Absent() {
		n, err = b.putLabels(rec, args)
	}
	switch {
	case err != nil:
		return 0, err
	case n == 0 && cond.Absent():
		return 0, backend.ErrConflict
	case n == 0:
		v, _ := cond.Version()
		return 0, b.differs(rec.ID, v)
	case cond.Absent():
		if err := b.listUnder(sqlInsertLabel, rec, rec.Labels, nil); err != nil {
			return 0, err
		}
	}
	return version, b.change(rec.ID)
}

// putLabels is an update of a record whose labels change, with the arguments of sqlUpdate.
func (b *batch) putLabels(rec *backend.Record, args []any) (n int64, err error) {
	var stored []byte
	err = b.c.row(sqlLabels, []any{rec.ID[:], args[len(args)-1]}, &stored)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil // another version
	}
	if err != nil {
		return 0, err
	}
	old, err := decodeLabels(stored)
	if err != nil {
		return 0, err
	}
	if n, err = b.c.run(sqlUpdateLabels, args...); err != nil || n == 0 {
		return n, err
	}
	return n, errors.Join(b.listUnder(sqlDeleteLabel, rec, old, rec.Labels), b.listUnder(sqlInsertLabel, rec, rec.Labels, old))
}

// listUnder runs a statement for each label that is not in but.
func (b *batch) listUnder(text string, rec *backend.Record, labels, but []string) error {
	for _, label := range labels {
		if slices.Contains(but, label) {
			continue
		}
		if _, err := b.c.run(text, int64(rec.Kind), []byte(label), rec.Created, rec.ID[:]); err != nil {
			return err
		}
	}
	return nil
}

func encodeLabels(labels []string) []byte {
	b := []byte{} // not NULL
	for _, label := range labels {
		b = append(binary.AppendUvarint(b, uint64(len(label))), label...)
	}
	return b
}

func decodeLabels(b []byte) (labels []string, err error) {
	for len(b) > 0 {
		n, used := binary.Uvarint(b)
		if used <= 0 || n == 0 || n > uint64(len(b)-used) {
			return nil, fmt.Errorf("%w: labels", backend.ErrCorrupt)
		}
		labels = append(labels, string(b[used:used+int(n)]))
		b = b[used+int(n):]
	}
	return labels, nil
}

// differs says why a statement found no record with this ID and version.
func (b *batch) differs(id backend.ID, version uint64) error {
	var have int64
	err := b.c.row(sqlVersion, []any{id[:]}, &have)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return backend.ErrNotFound
	case err != nil:
		return err
	case uint64(have) != version:
		return backend.ErrConflict
	}
	return fmt.Errorf("%w: kind, owner, parent and created never change", backend.ErrInvalid)
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, id backend.ID, version uint64) error {
	return s.queue.Submit(ctx, &op{Size: 1024, Urgent: true, Apply: func(b *batch) error {
		if version > math.MaxInt64 {
			return b.differs(id, version)
		}
		return b.remove(id, version)
	}})
}

func (b *batch) remove(id backend.ID, version uint64) error {
	n, err := b.c.run(sqlDelete, id[:], int64(version))
	if err == nil && n == 0 {
		n, err = b.removeListed(id, int64(version))
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return b.differs(id, version)
	}
	if _, err := b.c.run(sqlDeleteUsage, id[:]); err != nil {
		return err
	}
	return b.change(id)
}

// removeListed removes a record that has labels.
func (b *batch) removeListed(id backend.ID, version int64) (n int64, err error) {
	gone := backend.Record{ID: id}
	var stored []byte
	err = b.c.row(sqlListed, []any{id[:], version}, &gone.Kind, &gone.Created, &stored)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil // another version
	}
	if err != nil {
		return 0, err
	}
	if gone.Labels, err = decodeLabels(stored); err != nil {
		return 0, err
	}
	if err := b.listUnder(sqlDeleteLabel, &gone, gone.Labels, nil); err != nil {
		return 0, err
	}
	if _, err := b.c.run(sqlUnlabel, id[:]); err != nil {
		return 0, err
	}
	return b.c.run(sqlDelete, id[:], version)
}

// usageAlone is how long a batch of usage may be to share a transaction.
const usageAlone = 200

// AddUsage implements backend.UsageRecorder. N stops at the largest int64.
func (s *Store) AddUsage(ctx context.Context, usage []backend.Usage) error {
	usage = append([]backend.Usage(nil), usage...)
	return s.queue.Submit(ctx, &op{Size: 64 * len(usage), Alone: len(usage) > usageAlone, Apply: func(b *batch) error {
		for _, u := range usage {
			if _, err := b.c.run(sqlAddUsage, u.ID[:], int64(min(u.N, math.MaxInt64)), u.Last); err != nil {
				return err
			}
		}
		return nil
	}})
}

// Purge implements backend.Purger. What is due is looked up in the transaction
// that removes it, so a record whose PurgeAt moves meanwhile stays.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	n := 0
	err := s.queue.Submit(ctx, &op{Alone: true, Urgent: true, Apply: func(b *batch) error {
		type record struct {
			id      backend.ID
			version uint64
		}
		var due []record
		err := b.c.rows(sqlDue, []any{before.UnixMilli(), limit}, func(rows *sql.Rows) error {
			var id sql.RawBytes
			var version int64
			if err := rows.Scan(&id, &version); err != nil {
				return err
			}
			if len(id) != len(backend.ID{}) {
				return backend.ErrCorrupt
			}
			due = append(due, record{backend.ID(id), uint64(version)})
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range due {
			if err := b.remove(r.id, r.version); err != nil {
				return err
			}
		}
		n = len(due)
		return nil
	}})
	if err != nil {
		return 0, err
	}
	return n, nil
}
