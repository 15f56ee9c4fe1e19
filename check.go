package fob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// A secret of Config that is not what it was makes good credentials look unknown, and
// their holders would be told that it is their fault. So the store keeps a check value
// of each: what the secret makes of a fixed text, checkLen bytes of it. It is written
// when something is first made with the secret, and compared
//
//   - before this process first makes something with the secret: where they differ, it
//     makes nothing that the others could not check (ErrPepper);
//   - when something that was presented did not match, the first time: then nobody knows
//     whether the credential or the secret is wrong, and the answer is "could not check".
//
// What does match needs no check value. Whoever has a copy of the store can check a
// guess of the secret by it, and could as well by the digest of any key that is his
// own; the secrets are too long to be guessed.
const checkLen = 8

// checkAgain is how long it is believed that there is no check value, or a wrong one.
const checkAgain = int64(10 * time.Second)

// foreignCheck is the text of which the check value of ForeignKeys.Digest is made. If
// the function has none for it, nothing can be said of the function.
const foreignCheck = "fob-key-check.0000000000000000"

// configured is one secret of Config that has a check value.
type configured struct {
	name  string    // for messages; never the secret
	ref   record.ID // of the check value
	value string
	err   error // what a wrong one is
}

// proofs are what is known of the secrets.
type proofs struct {
	mu  sync.Mutex // guards all
	all map[record.ID]proof

	once    sync.Once // what Config.Foreign.Digest makes of the fixed text
	foreign configured
	tells   bool
}

// proof is what is known of one secret.
type proof struct {
	state   proofState
	at      int64 // monotonic
	matched bool  // something that was made with it did match
}

type proofState uint8

const (
	proofNone   proofState = iota
	proofAbsent            // there is no check value
	proofRight
	proofWrong
)

func (p *proofs) get(ref record.ID) proof {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[ref]
}

func (p *proofs) set(ref record.ID, to func(*proof)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[record.ID]proof)
	}
	one := p.all[ref]
	to(&one)
	p.all[ref] = one
}

func checkRecord(what, name string) record.ID { return record.Named(record.Check, what, name) }

// pepper describes a pepper that Config holds.
func (m *Manager) pepper(id string) configured {
	d := pepperedDigest(m.peppers[id], []byte("fob key check "+id))
	return configured{
		name: fmt.Sprintf("pepper %q", id), ref: checkRecord("pepper", id), value: string(d.sum[:checkLen]),
		err: fmt.Errorf("%w: %q has another key than the one that is in use under this ID", ErrPepper, id),
	}
}

// foreignDigest describes Config.Foreign.Digest; ok is false if nothing can be said.
func (m *Manager) foreignDigest() (c configured, ok bool) {
	m.proofs.once.Do(func() {
		if m.cfg.Foreign == nil || m.cfg.Foreign.Digest == nil {
			return
		}
		made := m.cfg.Foreign.Digest(foreignCheck)
		if len(made) == 0 {
			return
		}
		d := digestOf(append([]byte("fob foreign digest check "), made...))
		m.proofs.tells = true
		m.proofs.foreign = configured{
			name: "foreign digest", ref: checkRecord("foreign", "digest"), value: string(d.sum[:checkLen]),
			err: fmt.Errorf("%w: Config.Foreign.Digest is another one than that of the keys imported by it", ErrPepper),
		}
	})
	return m.proofs.foreign, m.proofs.tells
}

// compare reads the check value of a secret and notes what it says.
func (m *Manager) compare(ctx context.Context, c configured) (proofState, error) {
	now := m.clock.Now()
	rec, err := m.store.Get(ctx, c.ref)
	state := proofAbsent
	switch {
	case errors.Is(err, backend.ErrNotFound):
	case err != nil:
		return proofNone, errs.OfStore("check "+c.name, err)
	default:
		r, err := record.Open(&rec, record.Check)
		if err != nil {
			return proofNone, fmt.Errorf("check %s: %w", c.name, err)
		}
		field, value, ok := r.Next()
		if !ok || field != record.FieldCheck || r.Rest != "" {
			return proofNone, fmt.Errorf("check %s: %w", c.name, record.Corrupt(&rec, "fields"))
		}
		if state = proofWrong; value == c.value { // no secret: both are in the store, or would be
			state = proofRight
		}
	}
	m.proofs.set(c.ref, func(p *proof) { p.state, p.at = state, now.Mono })
	if state == proofWrong {
		m.problem(c.name, c.err)
	} else {
		m.problem(c.name, nil)
	}
	return state, nil
}

// vouch makes sure that a secret is the one that all use, before something is made with
// it: the first one whose check value is written is.
func (m *Manager) vouch(ctx context.Context, c configured) error {
	if p := m.proofs.get(c.ref); p.state == proofRight {
		return nil
	}
	return retry.Do(ctx, func(bool) error {
		state, err := m.compare(ctx, c)
		switch {
		case err != nil:
			return err
		case state == proofRight:
			return nil
		case state == proofWrong:
			return c.err
		}
		rec := backend.Record{ID: c.ref, Kind: record.Check, Created: clock.Millis(m.now())}
		w := record.NewBody()
		w.Text(record.FieldCheck, c.value)
		w.Seal(&rec)
		if _, err := m.records.Create(ctx, rec); err != nil {
			return retry.Raced(fmt.Errorf("write the check value of %s: %w", c.name, err))
		}
		return retry.Again(errs.ErrReadBack)
	})
}

// vouchPepper is vouch for the pepper of new digests, if there is one.
func (m *Manager) vouchPepper(ctx context.Context) error {
	if id := m.activePepper(); id != "" {
		return m.vouch(ctx, m.pepper(id))
	}
	return nil
}

// matched notes that something did match that was made with a pepper.
func (m *Manager) matched(pepper string) {
	if pepper == "" {
		return
	}
	ref := checkRecord("pepper", pepper)
	if p := m.proofs.get(ref); !p.matched {
		m.proofs.set(ref, func(p *proof) { p.matched = true })
	}
}

// doubt is asked when something did not match that was made with a secret. It returns
// nil where the secret is the right one, so that what was presented is wrong. needed
// says that there is something made with it, which has a check value then, unless it
// is older than these are.
func (m *Manager) doubt(ctx context.Context, c configured, needed bool) error {
	p := m.proofs.get(c.ref)
	if p.state == proofNone || p.state != proofRight && m.clock.Now().Age(p.at) >= checkAgain {
		state, err := m.compare(ctx, c)
		if err != nil {
			if p.matched && errs.IsOutage(err) {
				return nil
			}
			return err
		}
		p.state = state
	}
	switch {
	case p.state == proofWrong:
		return c.err
	case p.state == proofAbsent && needed && !p.matched:
		return fmt.Errorf("%w: nothing tells yet whether %s is the one in use", ErrPepper, c.name)
	}
	return nil
}

// doubtPepper is doubt for the pepper of a digest that did not match.
func (m *Manager) doubtPepper(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	return m.doubt(ctx, m.pepper(id), true)
}

// doubtForeign is doubt for Config.Foreign.Digest, before a text counts as unknown.
func (m *Manager) doubtForeign(ctx context.Context) error {
	if c, ok := m.foreignDigest(); ok {
		return m.doubt(ctx, c, false)
	}
	return nil
}

// Check looks whether the Manager can work as it is configured, for the start of a
// process: New asks nothing of the store, so that a process can start while that is
// down. It reads the store, compares every secret of Config with its check value in the
// store (a pepper or a ForeignKeys.Digest that is another one than before is ErrPepper,
// a SealKey ErrSealKey), lets the other processes know how patient this one is (see
// FleetStaleness), compares the clock with that of the store where it has one (ErrSkew),
// and looks whether the feed was lost. Its error joins all that is
// wrong, what Health.Problems tells too; nil means that nothing is. A secret with which
// nothing was made yet has no check value and is taken for right.
//
// It may be called at any time, by a readiness probe, say: it costs a read for each
// secret, one of the token keys, one of the fleet's record, and one of the store's clock
// where it has one.
func (m *Manager) Check(ctx context.Context) error {
	if m.life.Closed() {
		return ErrClosed
	}
	var wrongs []error
	secrets := make([]configured, 0, len(m.cfg.Peppers)+1)
	for _, p := range m.cfg.Peppers {
		secrets = append(secrets, m.pepper(p.ID))
	}
	if c, ok := m.foreignDigest(); ok {
		secrets = append(secrets, c)
	}
	for _, c := range secrets {
		if _, err := m.compare(ctx, c); err != nil {
			wrongs = append(wrongs, err) // one that is wrong is a problem, below
		}
	}
	if m.tokens != nil && m.tokens.Stored() {
		if err := m.tokens.Check(ctx); err != nil && errs.IsOutage(err) {
			wrongs = append(wrongs, err)
		} else {
			m.problem(ringName, err)
		}
	}
	if _, err := m.fleet.Bounds(ctx); err != nil {
		wrongs = append(wrongs, err)
	} else if !m.fleet.Joined() {
		if err := m.fleet.Join(ctx); err != nil {
			wrongs = append(wrongs, fmt.Errorf("join the fleet: %w", err))
		}
	}
	if err := m.checkSkew(ctx); err != nil && !errors.Is(err, ErrSkew) {
		wrongs = append(wrongs, err)
	}
	h := m.Health()
	wrongs = append(wrongs, h.Problems...)
	if h.Err != nil {
		wrongs = append(wrongs, h.Err)
	}
	if len(wrongs) == 0 {
		return nil
	}
	return fmt.Errorf("fob: check: %w", errors.Join(wrongs...))
}

// ringName is what the token keys are called among the problems.
const ringName = "token keys"
