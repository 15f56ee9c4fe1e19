package postgres

import (
	"context"
	"math"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SQL gives tests the statements that a Store sends.
func (s *Store) SQL() map[string]string {
	q := s.sql
	return map[string]string{
		"get": q.get, "getMany": q.getMany, "scan": q.scan, "insert": q.insert, "insertAll": q.insertAll, "update": q.update, "remove": q.remove,
		"kind": q.listKind, "owner": q.listOwner, "parent": q.listParent, "due": q.listDue,
		"label": q.listLabel, "newest": q.newestKind, "newestOf": q.newestLabel, "count": q.countLabel, "relabel": q.relabel,
		"purge": q.purge, "trim": q.trim, "poll": q.poll, "usage": q.usage, "addUsage": q.addUsage,
	}
}

// InsertArgs is the arguments of the statement "insert".
func InsertArgs(rec backend.Record) []any { return rowOf(&rec) }

// Fill is Options.fill.
func (o Options) Fill(sql string) string { return o.fill(sql) }

// Channel is where a Store sends NOTIFY.
func (s *Store) Channel() string { return s.opts.channel() }

// The stages of a call, for Verdict.
const (
	Acquiring = stageAcquiring
	Reading   = stageReading
	Writing   = stageWriting
)

// Verdict is what a Store makes of an error.
func Verdict(caller context.Context, at stage, err error) (error, bool) {
	return verdict(caller, "test", at, err)
}

// TrimOlder trims the feed of what is older, whatever Options.Retention allows.
func (s *Store) TrimOlder(ctx context.Context, than time.Duration) error {
	return s.trim(ctx, than, math.MaxInt)
}

// MaxChanges bounds a Batch.
const MaxChanges = maxChanges

// SetOutage makes a Watch give up after a shorter time without an answer. Call
// it before the first Watch.
func (s *Store) SetOutage(d time.Duration) { s.outage = d }

// Pool is the caller's.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// MaxLanes is how many statements with new records are under way at once.
const MaxLanes = maxLanes

// SetLongFlight changes when a lane is given to others. Call it before the first Put.
func (s *Store) SetLongFlight(d time.Duration) { s.inserts.long = d }

// Waiting is how many new records wait for the next statement.
func (s *Store) Waiting() int {
	s.inserts.mu.Lock()
	defer s.inserts.mu.Unlock()
	return s.inserts.waiting.Len()
}

// PerNotify is how many changes one announcement names at most.
const PerNotify = perNotify

// Announcement is what a Store announces.
func (s *Store) Announcement(changes ...backend.Change) string {
	return Announcement(*s.instance.Load(), changes...)
}

// Announcement is what a Store of an instance announces.
func Announcement(instance string, changes ...backend.Change) string {
	rows := make([]row, len(changes))
	for i, c := range changes {
		rows[i] = row{c.ID, int64(c.Version)}
	}
	return announcement(instance, rows)
}

// ReadAnnouncement is what a Watch makes of an announcement.
func ReadAnnouncement(instance, payload string) (changes []backend.Change, ok bool) {
	rows, ok := readAnnouncement(instance, payload)
	for _, r := range rows {
		changes = append(changes, backend.Change{ID: r.id, Version: uint64(r.version)})
	}
	return changes, ok
}
