package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Usage is kept in two places, and what Usage answers is their sum as of one
// revision: a counter for each ID, and a journal. AddUsage commits by writing the
// batch to the journal, in one transaction however long it is and without
// reading anything, so it goes whole or not at all and conflicts with nobody.
// Folding then moves one key of the journal, or a few small ones, into the
// counters in one transaction: the sum is the same before and after it.
const (
	maxUsageBatch = 10_000 // distinct IDs in one AddUsage
	entriesPerKey = 100    // so that one key can be folded in one transaction
	// A server allows 128 by default; one condition is the marker.
	maxFoldOps = 120
)

// AddUsage implements backend.UsageRecorder. A batch has at most 10,000 IDs.
func (s *Store) AddUsage(ctx context.Context, batch []backend.Usage) error {
	merged := mergeUsage(batch)
	if len(merged) > maxUsageBatch {
		return fmt.Errorf("etcd: %w: usage of %d IDs at once, at most %d", backend.ErrInvalid, len(merged), maxUsageBatch)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	if len(merged) == 0 {
		return nil
	}
	within, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.record(within, merged); err != nil {
		return writeFailure(ctx, "add usage", err)
	}
	// It is added; the rest is tidying, by one call at a time. What fails is left to
	// the next.
	select {
	case s.folding <- struct{}{}:
		defer func() { <-s.folding }()
		if err := s.fold(within, foldTries); err != nil {
			s.opts.Logger.Debug("etcd: usage stays in the journal for now", "error", err)
		}
	default:
	}
	return nil
}

// mergeUsage adds up what a batch says of each ID.
func mergeUsage(batch []backend.Usage) []backend.Usage {
	at := make(map[backend.ID]int, len(batch))
	out := make([]backend.Usage, 0, len(batch))
	for _, u := range batch {
		i, seen := at[u.ID]
		if !seen {
			at[u.ID] = len(out)
			out = append(out, u)
			continue
		}
		out[i].N += u.N
		out[i].Last = max(out[i].Last, u.Last)
	}
	return out
}

// record writes a batch to the journal.
func (s *Store) record(ctx context.Context, batch []backend.Usage) error {
	var name [16]byte
	_, _ = rand.Read(name[:]) // never returns an error
	var then []clientv3.Op
	for len(batch) > 0 {
		n := min(len(batch), entriesPerKey)
		key := s.keys.journal() + string(name[:]) + string([]byte{byte(len(then))})
		then = append(then, clientv3.OpPut(key, encodeEntries(batch[:n])))
		batch = batch[n:]
	}
	// Not repeatable: another process may have folded what the first attempt wrote.
	_, err := s.commit(ctx, transaction{then: then})
	if !isNoSpace(err) {
		return err
	}
	resp, readErr := s.read(ctx, s.keys.journal()+string(name[:]), clientv3.WithPrefix(), clientv3.WithCountOnly())
	switch {
	case readErr != nil:
		return err
	case resp.Count == 0: // folding takes space too: nobody has done that
		return unsentError{err}
	}
	return nil
}

// foldTries is how often a fold that meets another process's is tried again.
const foldTries = 5

var errBusy = errors.New("others are folding the same usage")

// settle folds all that was in the journal when it began, for records are about to
// go and their usage with them.
func (s *Store) settle(ctx context.Context, going []backend.Record) error {
	some, err := s.read(ctx, s.keys.journal(), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || some.Count == 0 {
		return err
	}
	select {
	case s.folding <- struct{}{}:
		defer func() { <-s.folding }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err = s.fold(ctx, 1<<20) // ctx is the bound
	if isNoSpace(err) && len(going) > 0 {
		// Folding takes space, and what goes makes some.
		return s.unused(ctx, going, err)
	}
	return err
}

// unused fails with full if the journal has usage of one of these records.
func (s *Store) unused(ctx context.Context, recs []backend.Record, full error) error {
	journal, err := s.read(ctx, s.keys.journal(), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range journal.Kvs {
		entries, _ := decodeEntries(kv.Value)
		for _, u := range entries {
			if slices.ContainsFunc(recs, func(r backend.Record) bool { return r.ID == u.ID }) {
				return full
			}
		}
	}
	return nil
}

// fold moves what is in the journal now into the counters, and fails after some
// tries in a row in which others came first. Its caller holds folding.
func (s *Store) fold(ctx context.Context, tries int) error {
	var until int64 // the revision of the first look
	for lost := 0; lost < tries; {
		opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(maxFoldOps)}
		if until > 0 {
			opts = append(opts, clientv3.WithMaxCreateRev(until))
		}
		journal, err := s.read(ctx, s.keys.journal(), opts...)
		if err != nil || len(journal.Kvs) == 0 {
			return err
		}
		if until == 0 {
			until = journal.Header.Revision
		}
		done, err := s.foldSome(ctx, journal.Kvs)
		if err != nil {
			return err
		}
		if done {
			lost = 0
			continue
		}
		lost++
	}
	return errBusy
}

// foldSome folds as many keys of the journal as one transaction can take. It
// reports false when one of them, or a counter, has changed under it.
func (s *Store) foldSome(ctx context.Context, journal []*mvccpb.KeyValue) (bool, error) {
	var conds []clientv3.Cmp
	var then []clientv3.Op
	sums := make(map[backend.ID]backend.Usage)
	for _, kv := range journal {
		entries, ok := decodeEntries(kv.Value)
		if !ok {
			s.opts.Logger.Warn("etcd: a damaged entry in the journal of usage is dropped", "bytes", len(kv.Value))
		}
		fresh := 0
		for _, u := range entries {
			if _, seen := sums[u.ID]; !seen {
				fresh++
			}
		}
		if len(then) > 0 && len(then)+1+len(sums)+fresh > maxFoldOps {
			break
		}
		for _, u := range entries {
			have := sums[u.ID]
			sums[u.ID] = backend.Usage{ID: u.ID, N: have.N + u.N, Last: max(have.Last, u.Last)}
		}
		key := string(kv.Key)
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision))
		then = append(then, clientv3.OpDelete(key))
	}
	ids, names := make([]backend.ID, 0, len(sums)), make([]string, 0, len(sums))
	for id := range sums {
		ids, names = append(ids, id), append(names, s.keys.usage(id))
	}
	counters, err := s.fetch(ctx, names, 0) // each has its own condition: they need not be of one instant
	if err != nil {
		return false, err
	}
	for i, kv := range counters {
		u, revision := sums[ids[i]], int64(0)
		if kv != nil {
			have, err := decodeUsage(ids[i], kv.Value)
			if err != nil {
				s.opts.Logger.Warn("etcd: a damaged counter begins again", "id", fmt.Sprintf("%x", ids[i]))
			}
			u.N, u.Last, revision = u.N+have.N, max(u.Last, have.Last), kv.ModRevision
		}
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(names[i]), "=", revision))
		then = append(then, clientv3.OpPut(names[i], encodeUsage(u)))
	}
	resp, err := s.commit(ctx, transaction{conds: conds, then: then, repeatable: true})
	if err != nil {
		return false, err
	}
	return resp.Succeeded, nil
}

// Usage implements backend.UsageRecorder.
func (s *Store) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Leave()
	out := make([]backend.Usage, len(ids))
	for i, id := range ids {
		out[i].ID = id
	}
	if len(ids) == 0 {
		return out, nil
	}
	within, cancel := s.bounded(ctx)
	defer cancel()
	err := s.check(within)
	if err == nil {
		for try := range compactionTries {
			if err = s.sum(within, out); !isCompacted(err) || try == compactionTries-1 {
				break
			}
		}
	}
	if err != nil {
		return nil, readFailure(ctx, "usage", err)
	}
	return out, nil
}

// sum fills in what counters and journal say of the IDs in out, as of one
// revision.
func (s *Store) sum(ctx context.Context, out []backend.Usage) error {
	journal, err := s.read(ctx, s.keys.journal(), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	names := make([]string, len(out))
	for i := range out {
		names[i] = s.keys.usage(out[i].ID)
	}
	counters, err := s.fetch(ctx, names, journal.Header.Revision)
	if err != nil {
		return err
	}
	waiting := make(map[backend.ID]backend.Usage)
	for _, kv := range journal.Kvs {
		entries, _ := decodeEntries(kv.Value) // a damaged one is warned of when it is folded
		for _, u := range entries {
			have := waiting[u.ID]
			waiting[u.ID] = backend.Usage{ID: u.ID, N: have.N + u.N, Last: max(have.Last, u.Last)}
		}
	}
	for i, kv := range counters {
		u := backend.Usage{ID: out[i].ID}
		if kv != nil {
			if u, err = decodeUsage(u.ID, kv.Value); err != nil {
				return err
			}
		}
		more := waiting[u.ID]
		out[i] = backend.Usage{ID: u.ID, N: u.N + more.N, Last: max(u.Last, more.Last)}
	}
	return nil
}

// Maintain implements backend.Maintainer: it folds usage that is left in the
// journal. Compaction and defragmentation are the operator's.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	return readFailure(ctx, "maintain", s.settle(within, nil))
}
