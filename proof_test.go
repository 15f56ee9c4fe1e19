package fob_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// The proof: what concurrent goroutines were told of a key is recorded and held
// against a model of one key that does one thing at a time (porcupine looks for an
// order of the operations that explains all answers). FOB_PROOF_ROUNDS makes it
// longer, FOB_PROOF_SEED repeats a run (make proof).

// action is what was asked for.
type action struct {
	verb   string // verify, fresh, get, list, disable, enable, scope, revoke; disable, enable and revoke subject, account
	scope  fob.Scope
	worker int
}

// looks reports whether an action asks what a key is, and changes nothing.
func (a action) looks() bool {
	return slices.Contains([]string{"verify", "fresh", "get", "list"}, a.verb)
}

// outcome is what was answered.
type outcome struct {
	what  string // accepted, disabled, revoked, unknown key; done, refused; unsure
	scope fob.Scope
}

// keyModel is a key that does one thing at a time.
type keyState struct {
	status    fob.Status
	scope     fob.Scope
	bySubject bool // revoked with its subject, or its account, which its own record does not say
	// subjectOff and accountOff say that its subject, or the account of that, is disabled.
	subjectOff, accountOff bool
}

// above reports whether an action is about what the key hangs from, and not for good.
func (a action) above() bool {
	return strings.HasSuffix(a.verb, "able subject") || strings.HasSuffix(a.verb, "able account")
}

var keyModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{keyState{status: fob.StatusActive, scope: "scope:0"}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(keyState), input.(action), output.(outcome)
		if in.looks() {
			right := outcome{what: "accepted", scope: s.scope}
			switch {
			case s.status == fob.StatusRevoked:
				right = outcome{what: "revoked"}
			case s.status == fob.StatusDisabled || s.subjectOff || s.accountOff:
				right = outcome{what: "disabled"}
			}
			if out == right || out.what == "unsure" { // could not check: no information
				return []any{s}
			}
			return nil
		}
		next := s
		switch in.verb {
		case "disable":
			next.status = fob.StatusDisabled
		case "enable":
			next.status = fob.StatusActive
		case "scope":
			next.scope = in.scope
		case "disable subject", "enable subject":
			next.subjectOff = in.verb == "disable subject"
		case "disable account", "enable account":
			next.accountOff = in.verb == "disable account"
		default:
			next.status, next.bySubject = fob.StatusRevoked, in.verb != "revoke"
		}
		if s.status == fob.StatusRevoked {
			next = s // for good
			next.bySubject = s.bySubject && in.verb != "revoke"
		}
		switch out.what {
		case "done":
			if s.status == fob.StatusRevoked && !s.bySubject && !strings.HasPrefix(in.verb, "revoke") && !in.above() {
				return nil
			}
			return []any{next}
		case "refused":
			if s.status != fob.StatusRevoked || in.above() {
				return nil
			}
			return []any{s}
		case "not done":
			return []any{s}
		default: // it may have happened
			return []any{s, next}
		}
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(action), output.(outcome)
		return fmt.Sprintf("%s %s → %s %s", in.verb, in.scope, out.what, out.scope)
	},
	DescribeState: func(state any) string { return fmt.Sprint(state) },
}).ToModel()

// proof is a system under test and what was seen of it.
type proof struct {
	seed     uint64
	managers []*fob.Manager
	lossy    bool // the store loses answers

	began time.Time
	mu    sync.Mutex
	slots [4]*provenKey
	all   []*provenKey
	names int
}

// provenKey is a key and its history.
type provenKey struct {
	text string
	id   fob.ID
	name string // its subject: each key has one of its own

	mu      sync.Mutex
	history []porcupine.Operation
}

// subject is whose the key is: it has a subject and an account of its own.
func (k *provenKey) subject() fob.Subject { return fob.App(k.name).In(fob.Account("of " + k.name)) }

func (p *proof) at() int64 { return int64(time.Since(p.began)) }

func (p *proof) issue(t *testing.T, slot int) *provenKey {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &provenKey{}
	for {
		p.names++ // one that could not be issued is there perhaps
		k.name = fmt.Sprintf("app-%d", p.names)
		secret, key, err := p.managers[0].IssueKey(context.Background(), fob.KeySpec{Subject: k.subject(), Scopes: fob.Scopes{"scope:0"}})
		if err == nil {
			k.text, k.id = secret.Reveal(), key.ID()
			break
		}
		if errors.Is(err, fob.ErrRejected) || errors.Is(err, fob.ErrInvalid) {
			t.Error(err)
			return k
		}
	}
	p.slots[slot] = k
	p.all = append(p.all, k)
	return k
}

// work does random things to random keys.
func (p *proof) work(t *testing.T, worker, operations int, pause time.Duration) {
	r := rand.New(rand.NewPCG(p.seed, uint64(worker)))
	ctx := context.Background()
	for n := range operations {
		slot := r.IntN(len(p.slots))
		p.mu.Lock()
		k := p.slots[slot]
		p.mu.Unlock()
		m := p.managers[r.IntN(len(p.managers))]
		in := action{worker: worker}
		var out outcome
		call := p.at()
		switch dice := r.IntN(100); {
		case dice < 56:
			in.verb = "verify"
			out = verified(m.Verify(ctx, k.text))
		case dice < 64:
			in.verb = "fresh"
			out = verified(m.Fresh().Verify(ctx, k.text))
		case dice < 72:
			in.verb = "get"
			out = statusOf(m.Get(ctx, k.id))
		case dice < 80:
			in.verb = "list"
			page, err := m.List(ctx, fob.Query{Subject: k.subject()})
			if err == nil && len(page.Items) != 1 {
				err = fmt.Errorf("%w: %d keys of one", fob.ErrRejected, len(page.Items))
			}
			if err != nil {
				out = verified(nil, err)
			} else {
				out = statusOf(page.Items[0], nil)
			}
		case dice < 94:
			// Of the key, of its subject, or of the account of that.
			in.verb = []string{"disable", "enable"}[dice%2]
			target := fob.Target(k.id)
			switch dice % 3 {
			case 1:
				in.verb, target = in.verb+" subject", k.subject()
			case 2:
				in.verb, target = in.verb+" account", k.subject().Account
			}
			if dice%2 == 0 {
				out = changed(m.Disable(ctx, target, ""))
			} else {
				out = changed(m.Enable(ctx, target))
			}
		case dice < 98:
			in.verb, in.scope = "scope", fob.Scope(fmt.Sprintf("scope:%d-%d", worker, n))
			_, err := m.UpdateKey(ctx, k.id, fob.KeyUpdate{Scopes: &fob.Scopes{in.scope}})
			out = changed(err)
		case dice < 99:
			in.verb = "revoke"
			_, err := m.Revoke(ctx, k.id, "")
			out = changed(err)
		default:
			in.verb = "revoke subject"
			target := fob.Target(k.subject())
			if n%2 == 0 {
				in.verb, target = "revoke account", k.subject().Account
			}
			_, err := m.Revoke(ctx, target, "")
			out = changed(err)
		}
		op := porcupine.Operation{ClientId: worker, Input: in, Call: call, Output: out, Return: p.at()}
		if out.what == "perhaps" {
			op.Return = int64(time.Hour) // at any time, or never
		}
		k.mu.Lock()
		k.history = append(k.history, op)
		k.mu.Unlock()
		if strings.HasPrefix(in.verb, "revoke") {
			p.issue(t, slot)
		}
		if pause > 0 && n%8 == 0 {
			time.Sleep(time.Duration(r.Int64N(int64(pause))))
		}
	}
}

func verified(cred fob.Credential, err error) outcome {
	switch {
	case err == nil:
		return outcome{what: "accepted", scope: cred.Scopes()[0]}
	case errors.Is(err, fob.ErrRevoked):
		return outcome{what: "revoked"}
	case errors.Is(err, fob.ErrDisabled):
		return outcome{what: "disabled"}
	case errors.Is(err, fob.ErrRejected):
		return outcome{what: err.Error()} // there is no right time for it
	}
	return outcome{what: "unsure"}
}

// statusOf is what the status of a key says, as a verification would.
func statusOf(cred fob.Credential, err error) outcome {
	if err == nil {
		switch cred.StatusAt(time.Now()) {
		case fob.StatusDisabled:
			err = fob.ErrDisabled
		case fob.StatusRevoked:
			err = fob.ErrRevoked
		}
	}
	return verified(cred, err)
}

func changed(err error) outcome {
	switch {
	case err == nil:
		return outcome{what: "done"}
	case errors.Is(err, fob.ErrIndeterminate):
		return outcome{what: "perhaps"}
	case errors.Is(err, fob.ErrRevoked):
		return outcome{what: "refused"}
	}
	return outcome{what: "not done"}
}

// violations runs the workers and returns how many keys were told of in a way that
// nothing explains, with the story of the first.
func (p *proof) violations(t *testing.T, workers, operations int, pause time.Duration) (n int, story string) {
	t.Helper()
	p.began = time.Now()
	for slot := range p.slots {
		p.issue(t, slot)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { p.work(t, w, operations, pause) })
	}
	wg.Wait()
	for _, k := range p.all {
		result, info := porcupine.CheckOperationsVerbose(keyModel, k.history, time.Minute)
		if result == porcupine.Illegal && p.lossy {
			result, info = porcupine.CheckOperationsVerbose(keyModel, echoed(k.history), time.Minute)
		}
		if result == porcupine.Unknown {
			t.Errorf("seed %d, key %s: no verdict on %d operations in a minute", p.seed, k.name, len(k.history))
		}
		if result != porcupine.Illegal {
			continue
		}
		n++
		if story != "" {
			continue
		}
		story = fmt.Sprintf("seed %d, key %s of %d operations: %s", p.seed, k.name, len(k.history), result)
		page := filepath.Join(t.ArtifactDir(), k.name+".html")
		if err := porcupine.VisualizePath(keyModel, info, page); err == nil {
			story += ", drawn in " + page
		}
		told := untilWrong(k.history)
		for _, op := range told[max(0, len(told)-60):] {
			story += fmt.Sprintf("\n%12d %12d  %d  %s", op.Call, op.Return, op.ClientId, keyModel.DescribeOperation(op.Input, op.Output))
		}
	}
	return n, story
}

// echoed adds to each change that it may have been made twice: a change whose answer
// the store lost is made again until the store confirms it, and another one may have
// come between.
func echoed(history []porcupine.Operation) []porcupine.Operation {
	all := slices.Clone(history)
	for _, op := range history {
		if !op.Input.(action).looks() {
			op.Output = outcome{what: "perhaps"}
			all = append(all, op)
		}
	}
	return all
}

// untilWrong returns the beginning of a history up to the first answer that nothing
// explains, in the order of the calls.
func untilWrong(history []porcupine.Operation) []porcupine.Operation {
	byReturn := slices.Clone(history)
	slices.SortFunc(byReturn, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for i, last := range byReturn {
		told := slices.Clone(byReturn[:i+1])
		for _, op := range byReturn[i+1:] {
			if op.Call < last.Return && !op.Input.(action).looks() { // under way
				op.Output, op.Return = outcome{what: "perhaps"}, int64(time.Hour)
				told = append(told, op)
			}
		}
		if !porcupine.CheckOperations(keyModel, told) {
			slices.SortFunc(told, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
			return told
		}
	}
	return history
}

func proofRounds(least int) int {
	n, err := strconv.Atoi(os.Getenv("FOB_PROOF_ROUNDS"))
	if err != nil {
		return least
	}
	return n
}

func proofSeed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("FOB_PROOF_SEED"), 10, 64)
	if err != nil {
		return rand.Uint64()
	}
	return n
}

// faulty makes calls of a store fail, hang for a moment, and lose their answers.
func faulty(store backend.Store, seed uint64) backend.Store {
	r := rand.New(rand.NewPCG(seed, 99))
	fault := backendtest.NewFault(store)
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		dice := r.IntN(1000)
		switch {
		case c.Op == backendtest.OpBatch:
			if dice < 20 {
				return backendtest.Unavailable() // the feed breaks off
			}
			return backendtest.Injection{}
		case dice < 20:
			return backendtest.Unavailable()
		case dice < 40 && c.Op == backendtest.OpPut:
			return backendtest.LostAck()
		case dice < 100:
			return backendtest.Injection{Delay: time.Duration(r.IntN(300)) * time.Microsecond}
		case dice < 160: // the answer is old before it is here
			wait := time.Duration(r.IntN(300)) * time.Microsecond
			return backendtest.Injection{After: func() { time.Sleep(wait) }}
		}
		return backendtest.Injection{}
	})
	return fault
}

// lagging makes acknowledgements, and answers of reads, come long after the store has
// made or read what they tell.
func lagging(store backend.Store, seed uint64) backend.Store {
	r := rand.New(rand.NewPCG(seed, 98))
	fault := backendtest.NewFault(store)
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		wait := time.Duration(r.IntN(1000)) * time.Microsecond
		switch {
		case c.Op == backendtest.OpPut && r.IntN(2) == 0, c.Op == backendtest.OpGet && r.IntN(4) == 0:
			return backendtest.Injection{After: func() { time.Sleep(wait) }}
		}
		return backendtest.Injection{}
	})
	return fault
}

// listing is a store with lists and without a feed.
type listing struct{ backend.Store }

func (s listing) Unwrap() backend.Store { return nil }

func (s listing) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	lister, _ := backend.As[backend.Lister](s.Store)
	return lister.List(ctx, q)
}

func proofStores(t *testing.T) map[string]func(t *testing.T) backend.Store {
	t.Helper()
	return map[string]func(t *testing.T) backend.Store{
		"memory": func(t *testing.T) backend.Store {
			s := memory.New()
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		"badger": func(t *testing.T) backend.Store {
			s, err := badger.Open(t.TempDir(), badger.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			return s
		},
	}
}

// toldRound is one round of the proof over a store whose answers lag: of all that is under
// way, what was told first must not be followed by what is older.
func toldRound(t *testing.T, store backend.Store, seed uint64, breakIt func(*fob.Manager)) (violations int, story string) {
	t.Helper()
	m := newManager(t, store, fob.Config{MaxStaleness: time.Hour})
	if breakIt != nil {
		breakIt(m)
	}
	p := &proof{seed: seed, managers: []*fob.Manager{m}}
	return p.violations(t, 8, 200, 0)
}

// Nobody is told an older state of a key after somebody was told a newer one, by
// whichever call, while the change that came between is not acknowledged yet.
func TestNothingOldAfterNew(t *testing.T) {
	seed := proofSeed()
	for name, open := range proofStores(t) {
		for _, follows := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/feed=%v", name, follows), func(t *testing.T) {
				t.Parallel() // they mostly wait
				for round := range proofRounds(4) {
					store := lagging(open(t), seed+uint64(round))
					if !follows {
						store = listing{store}
					}
					n, story := toldRound(t, store, seed+uint64(round), nil)
					require.Zero(t, n, story)
				}
			})
		}
	}
}

// In one process every answer is as if the operations had been done one after the
// other, each at some instant between its call and its return.
func TestLinearizable(t *testing.T) {
	seed := proofSeed()
	for name, open := range proofStores(t) {
		t.Run(name, func(t *testing.T) {
			for round := range proofRounds(8) {
				seed := seed + uint64(round)
				store := open(t)
				if round%2 == 1 {
					store = faulty(store, seed)
				}
				cfg := fob.Config{MaxStaleness: 50 * time.Millisecond}
				if round%4 >= 2 {
					cfg = fob.Config{MaxStaleness: time.Hour, CacheEntries: 2}
				}
				p := &proof{seed: seed, managers: []*fob.Manager{newManager(t, store, cfg)}, lossy: round%2 == 1}
				n, story := p.violations(t, 6, 300, time.Millisecond)
				require.Zero(t, n, story)
			}
		})
	}
}
