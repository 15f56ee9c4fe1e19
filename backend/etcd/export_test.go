package etcd

import (
	"context"

	"github.com/fobkit/fob/backend"
)

// WriteFailure, ReadFailure, Unsent and Again are for tests of what a failure is
// taken for.
func WriteFailure(ctx context.Context, err error) error { return writeFailure(ctx, "write", err) }
func ReadFailure(ctx context.Context, err error) error  { return readFailure(ctx, "read", err) }
func Unsent(err error) error                            { return unsentError{err} }
func Again(ctx context.Context, err error) bool         { return waitToRetry(ctx, err) }
func Hopeless(err error) bool                           { return isHopeless(err) }

// Position is a place in a history, for tests of tokens.
type Position struct {
	Epoch, Cluster, Term byte
	Revision             int64
}

func (p Position) inner() position {
	return position{epoch: [16]byte{p.Epoch}, cluster: uint64(p.Cluster), term: uint64(p.Term), revision: p.Revision}
}

// Token is the token of a place.
func (p Position) Token() backend.Token { return p.inner().token() }

// Continues reports whether what a proof showed continues a token's history.
func Continues(now Position, markedAt int64, t backend.Token) bool {
	old, ok := parseToken(t)
	return ok && proof{now.inner(), markedAt}.continues(old)
}

// Encode and Decode are the value of a record; Written tells whose write it was.
func Encode(r backend.Record) (value, nonce []byte) {
	n := newNonce()
	return []byte(encodeRecord(&r, n)), n[:]
}

func Decode(id backend.ID, b []byte, revision int64) (backend.Record, error) {
	return decodeRecord(id, b, revision)
}
func Written(b, n []byte) bool { return hasNonce(b, nonce(n)) }

// IndexKeys are all the keys under which a record is listed.
func IndexKeys(prefix string, r backend.Record) []string {
	fixed, moving := keys{prefix}.indexes(&r)
	return append(fixed, moving...)
}

// Range is the range that a list reads.
func Range(prefix string, q backend.Query) (start, end string) {
	_, start, end = keys{prefix}.list(&q)
	return start, end
}

// Erasable is how many records one transaction removes.
func Erasable(recs []backend.Record) int { return keys{"fob/"}.erasable(recs) }

// After is the end of what begins with list.
func After(list []byte) string { return keyAfter(list) }

// Moves are the keys that an update removes and adds.
func Moves(before, now []string) (gone, added []string) {
	for _, op := range indexMoves(before, now) {
		if op.IsDelete() {
			gone = append(gone, string(op.KeyBytes()))
		} else {
			added = append(added, string(op.KeyBytes()))
		}
	}
	return gone, added
}

// DecodeEntries reads a value of the journal.
func DecodeEntries(b []byte) ([]backend.Usage, bool) { return decodeEntries(b) }

// EncodeEntries writes one.
func EncodeEntries(batch []backend.Usage) string { return encodeEntries(batch) }

// Merge adds up a batch.
func Merge(batch []backend.Usage) []backend.Usage { return mergeUsage(batch) }
