// Package backend is the contract between fob and the place where its records
// live: standard library only. A store needs this file to be written and five
// lines of test (backendtest.Run) to be proven.
//
// A store keeps small versioned records and knows nothing of what they mean:
// it never sees a secret, decides no expiry and no revocation. Every rule of
// the contract has a number, R1 to R22; backendtest names the number when a
// store breaks one.
package backend

import (
	"context"
	"errors"
	"time"
)

// Limits that every store accepts and none exceeds. (R1: Put answers
// ErrInvalid past a limit, for a zero ID or Kind, a negative time, or a zero
// Cond, and List for a Query it cannot mean; nothing is written.)
const (
	MaxBody        = 64 << 10               // bytes in Record.Body
	MaxOwner       = 1 << 10                // bytes in Record.Owner
	MaxLabels      = 64                     // labels of one record
	MaxLabel       = 512                    // bytes in one label
	MaxLimit       = 1000                   // records in one Page, one Purge, or one GetMany
	DefaultLimit   = 100                    // where Query.Limit is 0
	HeartbeatEvery = 100 * time.Millisecond // longest time between two Batches of a Watch; see WithProofEvery
)

// ID names one record; any 16 bytes except all zero, equal only byte for byte.
type ID [16]byte

// Kind says what a record is, to the core alone. Zero is invalid.
type Kind uint8

// Record is one versioned record. Times are Unix milliseconds, UTC, never
// negative; zero means "not set". (R2: what Get and List return equals what
// was Put, every byte and millisecond of it, with Version filled in.)
type Record struct {
	ID      ID
	Kind    Kind     // immutable
	Owner   string   // who it belongs to: any bytes, no normalisation; immutable
	Parent  ID       // what it came from, zero for none; immutable
	Created int64    // orders lists; immutable
	Expires int64    // orders lists by expiry; the store decides nothing by it
	PurgeAt int64    // Purge may remove the record from then on; zero is never
	Labels  []string // further lists that it is in, see Query.Label: ascending, none twice, any bytes; nil and empty are equal
	Body    []byte   // encoded by the core, at most MaxBody; nil and empty are equal
	Version uint64   // set by the store; ignored in what is Put
}

// Cond is the condition of a Put. Its zero value is invalid: there is no
// blind write, so no edit can undo a revocation it has not seen.
type Cond struct {
	kind    uint8
	version uint64
}

func IfAbsent() Cond                        { return Cond{1, 0} }             // no record with this ID exists
func IfVersion(v uint64) Cond               { return Cond{2, v} }             // it exists with exactly this version
func (c Cond) Absent() bool                 { return c.kind == 1 }            // whether c is IfAbsent
func (c Cond) Version() (v uint64, ok bool) { return c.version, c.kind == 2 } // v and true when c is IfVersion(v)

// Sentinels, tested with errors.Is; a store wraps them with what it was doing,
// and a context's error beside them. "Surely not" means surely not applied.
var (
	ErrNotFound      = errors.New("backend: not found")        // no such record (Get; Put IfVersion; Delete)
	ErrConflict      = errors.New("backend: conflict")         // the condition did not hold; surely not
	ErrIndeterminate = errors.New("backend: outcome unknown")  // perhaps applied: timeout, connection lost, I/O error at commit
	ErrUnavailable   = errors.New("backend: unavailable")      // the engine cannot be reached or refuses; surely not
	ErrClosed        = errors.New("backend: closed")           // the store was closed; surely not
	ErrInvalid       = errors.New("backend: invalid argument") // R1 or R10 broken by the caller; surely not
	ErrCorrupt       = errors.New("backend: corrupt record")   // the engine holds something that is not a record
)

// Store is what every engine provides. R3: all methods are safe for
// concurrent use. R4: a context already done makes a call fail with its error
// and change nothing; one that ends later makes a Put or an AddUsage fail with
// ErrIndeterminate unless its outcome is known (its error alone: surely not).
type Store interface {
	// Get is linearizable. R5: it sees every Put that returned before it
	// began, whoever made it. R6: the store shares no memory with its caller,
	// neither what was passed in nor what it hands out.
	Get(ctx context.Context, id ID) (Record, error)

	// Put writes rec if cond holds and returns the new version. R7: of n
	// concurrent Puts with the same condition exactly one returns nil.
	// R8: versions are above zero and rise strictly per ID; they mean nothing
	// between IDs. R9: a Put that returned nil survives kill -9 and power loss
	// (stores that are not durable say so). R10: a failed condition is
	// ErrConflict, or ErrNotFound where IfVersion finds no record; changing
	// Kind, Owner, Parent or Created is ErrInvalid.
	Put(ctx context.Context, rec Record, cond Cond) (version uint64, err error)

	// Delete removes a record and its usage if it has this version (else
	// ErrConflict, ErrNotFound). Revocation is an overwrite, never a Delete.
	Delete(ctx context.Context, id ID, version uint64) error

	// Close waits for calls under way, ends every Watch with ErrClosed, and
	// leaves no goroutine. R11: it may be called again (nil); every other
	// call after it answers ErrClosed.
	Close() error
}

// Token says where in a feed to resume; opaque, survives restarts of a durable
// store. Nil means "from now".
type Token []byte

// Change says that a record changed or was deleted; never what is in it.
type Change struct {
	ID      ID
	Version uint64 // the version now current, or a later one; for a delete above the last
}

// Batch is one delivery of a feed. AsOf is this process's clock (with its
// monotonic reading), taken before the request that proves it: every change
// committed before AsOf has been delivered. Reset says that history was lost,
// and what the consumer holds must be forgotten.
type Batch struct {
	Changes []Change // may be empty: a pure proof of freshness
	Token   Token    // resume after this batch
	AsOf    time.Time
	Reset   bool
}

// Watcher is the change feed. R12: the first Batch comes at once; every change after it
// (or after from), or a later one of the same ID, is delivered at least once, in any
// order, or else a Reset. R13: while the engine answers, a Batch comes at least every
// HeartbeatEvery, or as often as the context asks for (WithProofEvery). R14: a slow fn
// never delays a writer. Watch returns fn's error, the context's, or ErrClosed.
type Watcher interface {
	Watch(ctx context.Context, from Token, fn func(Batch) error) error
}

// Cursor continues a list: opaque, printable, URL-safe, valid across restarts. A
// cursor that is not from this list is ErrInvalid.
type Cursor string

// Query selects records of one Kind (required) by at most one index: Owner, or
// Parent, or Label, or ExpiresBefore (0 < Expires < it). None lists the whole Kind. An
// empty Owner, a zero Parent and an empty Label mean "not by this index".
type Query struct {
	Kind          Kind
	Owner         string
	Parent        ID
	Label         string
	ExpiresBefore int64
	Newest        bool // the last created first; not with ExpiresBefore
	After         Cursor
	Limit         int // 1 to MaxLimit; 0 is DefaultLimit
}

// Page is one answer. Next is empty only at the end of the list.
type Page struct {
	Records []Record
	Next    Cursor
}

// Lister lists by index. R15: in order of (Created, ID), with Newest in the reverse of
// it, by expiry (Expires, ID); a record that keeps its place during the whole walk appears
// exactly once, whatever is written meanwhile; expired ones stay until purged. R21: a
// record is in the list of each label that the last Put gave it, and in no other.
type Lister interface {
	List(ctx context.Context, q Query) (Page, error)
}

// Counter counts the records of a list without reading them. R22: Count returns how many
// records q selects, or most (at least 1) if there are that many or more. q.After and
// q.Limit must not be set. What is written meanwhile may be counted or not.
type Counter interface {
	Count(ctx context.Context, q Query, most int) (n int, err error)
}

// BulkReader reads many records at once. R19: it reads each as Get does, so it sees every
// Put that returned before the call began; but it need not read all at one instant.
// Records that do not exist are left out. The others come in any order; one that ids
// names twice comes once or twice. More than MaxLimit IDs are ErrInvalid.
type BulkReader interface {
	GetMany(ctx context.Context, ids []ID) ([]Record, error)
}

// Scanner reads all records of a Kind, where the engine can in less time than List takes.
// R20: a record that exists during the whole Scan is delivered at least once, in any
// order, in a state that it had during the Scan. fn runs in the caller's goroutine, gets
// at least one record each time, and may keep them. Scan returns fn's error as it is. A
// Kind of zero is ErrInvalid.
type Scanner interface {
	Scan(ctx context.Context, kind Kind, fn func([]Record) error) error
}

// Usage is how often and when (Unix milliseconds) a credential was last used.
type Usage struct {
	ID   ID
	N    uint64
	Last int64
}

// UsageRecorder keeps usage apart from records. R16: AddUsage adds N and moves
// Last forward only, the whole batch or none of it (see R4); IDs may repeat in a
// batch and need no record. Usage answers in the order asked, zeros for the unknown.
type UsageRecorder interface {
	AddUsage(ctx context.Context, batch []Usage) error
	Usage(ctx context.Context, ids []ID) ([]Usage, error)
}

// Purger removes old records. R17: at most limit records (1 to MaxLimit) with
// 0 < PurgeAt <= before go, with their usage, and never another, not even
// one whose PurgeAt moves while Purge runs. It returns how many went.
type Purger interface {
	Purge(ctx context.Context, before time.Time, limit int) (n int, err error)
}

// Clock is the engine's own clock, where that is not the clock of this machine. It is
// read to notice that a process's clock is wrong, and decides nothing else. Now fails
// with errors.ErrUnsupported where a wrapped engine has none.
type Clock interface {
	Now(ctx context.Context) (time.Time, error)
}

// Maintainer does upkeep that an engine wants now and then. It may take long
// and never blocks the other methods.
type Maintainer interface {
	Maintain(ctx context.Context) error
}

// Wrapper is a store around another one.
type Wrapper interface{ Unwrap() Store }

// As finds a capability of s or of a store it wraps, as errors.As does.
func As[T any](s Store) (T, bool) {
	t, ok := s.(T)
	if w, wraps := s.(Wrapper); !ok && wraps {
		return As[T](w.Unwrap())
	}
	return t, ok
}
