package recordstore_test

import (
	"context"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

var id = record.Named(record.Check, "a")

func recordOf(text string) backend.Record {
	rec := backend.Record{ID: id, Kind: record.Check, Created: 1}
	w := record.NewBody()
	w.Text(record.FieldCheck, text)
	w.Finish(&rec)
	return rec
}

// process is one of several that share a store.
type process struct {
	recordstore.Store
	fault     *backendtest.Fault
	forgotten int
}

func newProcess(t *testing.T, store backend.Store) *process {
	p := &process{fault: backendtest.NewFault(store)}
	p.Store = recordstore.Store{Store: p.fault, Forget: func(ids ...backend.ID) {
		require.Equal(t, []backend.ID{id}, ids)
		p.forgotten++
	}}
	return p
}

// holds asserts what is in the store, and at which version.
func (p *process) holds(t *testing.T, want backend.Record, version uint64) {
	t.Helper()
	got, err := p.Get(t.Context(), id)
	require.NoError(t, err)
	want.Version = version
	require.Equal(t, want, got)
}

// Of two that make a record one makes it, and of two that replace it too.
func TestARecordIsWrittenOverNoOther(t *testing.T) {
	p := newProcess(t, memory.New())
	version, err := p.Create(t.Context(), recordOf("one"))
	require.NoError(t, err)
	p.holds(t, recordOf("one"), version)
	_, err = p.Create(t.Context(), recordOf("two"))
	require.ErrorIs(t, err, errs.ErrConflict)
	next, err := p.Replace(t.Context(), recordOf("two"), backend.IfVersion(version))
	require.NoError(t, err)
	require.Equal(t, 2, p.forgotten, "once for each that was written")
	_, err = p.Replace(t.Context(), recordOf("three"), backend.IfVersion(version))
	require.ErrorIs(t, err, errs.ErrConflict)
	require.NotErrorIs(t, err, errs.ErrIndeterminate)
	p.holds(t, recordOf("two"), next)
	require.Equal(t, 2, p.forgotten)
}

// A write of which nobody knows whether it was made is made once more, and is then sure.
func TestAWriteOfUnknownOutcomeIsMadeSure(t *testing.T) {
	for name, lost := range map[string]backendtest.Injection{
		"it was made":     backendtest.LostAck(),
		"it was not made": {Fail: backend.ErrIndeterminate},
	} {
		p := newProcess(t, memory.New())
		p.fault.InjectOnce(backendtest.OpPut, lost)
		version, err := p.Create(t.Context(), recordOf("one"))
		require.NoError(t, err, name)
		p.holds(t, recordOf("one"), version)
		require.Equal(t, 2, p.forgotten, "%s: and after the first, which may have been seen", name)
		require.Equal(t, 2, p.fault.Calls(backendtest.OpPut), "%s: what can be read need not be durable", name)

		p.fault.InjectOnce(backendtest.OpPut, lost)
		version, err = p.Replace(t.Context(), recordOf("two"), backend.IfVersion(version))
		require.NoError(t, err, name)
		p.holds(t, recordOf("two"), version)
	}
}

// Where somebody else has written since, it stays unknown whether the write was made
// before that; and so it does where the store cannot be asked.
func TestAnOutcomeThatStaysUnknown(t *testing.T) {
	for name, then := range map[string]func(*process, context.Context) error{
		"another write": func(p *process, ctx context.Context) error {
			left, err := p.Get(ctx, id)
			if err == nil {
				_, err = p.fault.Unwrap().Put(ctx, recordOf("theirs"), backend.IfVersion(left.Version))
			}
			return err
		},
		"no answer": func(p *process, _ context.Context) error {
			p.fault.InjectOnce(backendtest.OpGet, backendtest.Unavailable())
			return nil
		},
	} {
		p := newProcess(t, memory.New())
		lost := backendtest.LostAck()
		lost.After = func() { require.NoError(t, then(p, t.Context()), name) }
		p.fault.InjectOnce(backendtest.OpPut, lost)
		_, err := p.Create(t.Context(), recordOf("mine"))
		require.ErrorIs(t, err, errs.ErrIndeterminate, name)
		require.Equal(t, 1, p.forgotten, name)
	}
}

// An outage is no outcome that is unknown.
func TestAWriteThatWasSurelyNotMade(t *testing.T) {
	p := newProcess(t, memory.New())
	p.fault.InjectOnce(backendtest.OpPut, backendtest.Unavailable())
	_, err := p.Create(t.Context(), recordOf("one"))
	require.ErrorContains(t, err, "write: ")
	require.NotErrorIs(t, err, errs.ErrIndeterminate)
	require.True(t, errs.IsOutage(err))
	require.Zero(t, p.forgotten)
}

// Of what is read, somebody is told, but for what could not be read.
func TestWhatIsReadIsSeen(t *testing.T) {
	p := newProcess(t, memory.New())
	var saw, missing int
	seen := &recordstore.Seen{
		Store: p.fault,
		Saw: func(rec backend.Record) {
			saw++
			require.Equal(t, []any{id, uint64(1)}, []any{rec.ID, rec.Version})
		},
		Missing: func(of backend.ID) {
			missing++
			require.Equal(t, id, of)
		},
	}
	_, err := seen.Get(t.Context(), id)
	require.ErrorIs(t, err, backend.ErrNotFound)
	require.Equal(t, []int{0, 1}, []int{saw, missing})
	_, err = p.Create(t.Context(), recordOf("one"))
	require.NoError(t, err)
	_, err = seen.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, []int{1, 1}, []int{saw, missing})
	p.fault.InjectOnce(backendtest.OpGet, backendtest.Unavailable())
	_, err = seen.Get(t.Context(), id)
	require.Error(t, err)
	require.Equal(t, []int{1, 1}, []int{saw, missing})
	_, lists := backend.As[backend.Lister](seen)
	_, counts := backend.As[backend.Counter](seen)
	require.True(t, lists && counts, "the capabilities of the store are its own")
}
