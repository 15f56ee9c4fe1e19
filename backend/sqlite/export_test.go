package sqlite

import (
	"context"
	"time"
)

// FailCommits makes commits answer err after they were made; nil ends it.
func (s *Store) FailCommits(err error) { s.hooks.commitError = func() error { return err } }

// OnBatch is called with the number of operations in each batch, before it is
// made.
func (s *Store) OnBatch(f func(int)) { s.hooks.batched = f }

// OnCommit is called before each commit.
func (s *Store) OnCommit(f func()) { s.hooks.committing = f }

// OnApplied is called after each operation of a batch that succeeded; its error takes
// the place of the engine's.
func (s *Store) OnApplied(f func() error) { s.hooks.applied = f }

// Waiting is how many operations wait for the writer.
func (s *Store) Waiting() int { return s.queue.Waiting() }

// SetFree makes the file system look as if that much were free.
func (s *Store) SetFree(free func() uint64) { s.hooks.freeBytes = free }

// OnLook is called when a Watch has read the changes, before it delivers them.
func (s *Store) OnLook(f func()) { s.hooks.looked = f }

// OnAsk is called before a Watch looks at the file.
func (s *Store) OnAsk(f func()) { s.hooks.asked = f }

// ListenTo makes each Watch from now on listen to another file than the log.
func (s *Store) ListenTo(file string) { s.log = file }

// Hears reports whether the system tells of writes to the log.
func (s *Store) Hears() bool {
	l := listen(s.log, time.Millisecond)
	l.close()
	return l != nil
}

// Pace is when a Watch looks at the file.
type Pace struct{ p pace }

// NewPace is that of a Watch with a listener.
func NewPace(poll, proof time.Duration) *Pace { return &Pace{pace{poll: poll, proof: proof}} }

// Heard, Found and Next are what happens to a Watch, and what follows.
func (p *Pace) Heard(at time.Time)                                { p.p.heard(at) }
func (p *Pace) Found(at time.Time)                                { p.p.found(at) }
func (p *Pace) Next(at time.Time, proven time.Time) time.Duration { return p.p.next(at, proven) }

// Keep is how many changes the feed remembers from now on.
func (s *Store) Keep(n uint64) { s.hooks.keep = n }

// AtMost is how many changes a Batch has at most, from now on.
func (s *Store) AtMost(n int) { s.hooks.batch = n }

// WriterPragma is a setting of the connection that writes.
func (s *Store) WriterPragma(name string) (value string, err error) {
	err = s.queue.Submit(context.Background(), &op{Apply: func(b *batch) error { return b.c.ask("PRAGMA "+name, &value) }})
	return value, err
}

// ReaderPragma is a setting of a connection that reads.
func (s *Store) ReaderPragma(name string) (value string, err error) {
	err = s.read(context.Background(), "pragma", func(c *conn) error { return c.ask("PRAGMA "+name, &value) })
	return value, err
}

// The phases in which an engine fails.
const (
	Reading    = phaseReading
	Writing    = phaseWriting
	Committing = phaseCommitting
)

// Classified is what an error of the engine becomes.
func Classified(ph phase, err error) error { return contractError("test", ph, err) }

// Broken reports whether a connection is given up for an error.
func Broken(err error) bool { return isBroken(err) }

// Statements are those that must be a search in an index, by its name.
func Statements() map[string]string {
	return map[string]string{
		"sqlite_autoindex_fob_record_1 (id=?)":                             sqlGet,
		"fob_record_kind (kind=? AND (created,id)>(?,?))":                  sqlListKind,
		"fob_record_owner (kind=? AND owner=? AND (created,id)>(?,?))":     listSQL(sqlOwner, sqlAfter),
		"fob_record_parent (kind=? AND parent=? AND (created,id)>(?,?))":   listSQL(sqlParent, sqlAfter),
		"fob_record_expires (kind=? AND (expires,id)>(?,?) AND expires<?)": listSQL(sqlExpires, sqlAfterExpires),
		"fob_record_purge (purge_at>? AND purge_at<?)":                     sqlDue,
		"fob_change USING INTEGER PRIMARY KEY (rowid>?)":                   sqlChanges,
		"fob_change USING INTEGER PRIMARY KEY (rowid<?)":                   sqlTrimChanges,
		"fob_usage USING PRIMARY KEY (id=?)":                               sqlUsage,
		"sqlite_autoindex_fob_record_1 (id=?) ":                            sqlUpdate,
		"sqlite_autoindex_fob_record_1 (id=?)  ":                           sqlDelete,
		"sqlite_autoindex_fob_record_1 (id=?)   ":                          sqlGetMany,
	}
}

// Queued is how many writes wait for the next batch.
func (s *Store) Queued() int { return s.queue.Waiting() }

// listSQL is the statement that reads a page of a list.
func listSQL(list, order string) string { return `SELECT ` + selected + ` ` + list + order }
