package fleettest_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// keyState is one key that does one thing at a time.
type keyState struct{ status, scope string }

var keyModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{keyState{"ok", "scope:0"}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(keyState), input.(request), output.(reply)
		if in.Do == "fresh" {
			told := keyState{out.What, out.Scope}
			if out.Err != "" {
				told.scope = s.scope // a refusal says nothing of it
			}
			if told == s || out.Err != "" && !out.Reject { // could not check: no information
				return []any{s}
			}
			return nil
		}
		next := s
		switch in.Do {
		case "disable":
			next.status = "disabled"
		case "enable":
			next.status = "ok"
		case "scope":
			next.scope = in.Scope
		case "revoke":
			next.status = "revoked"
		}
		ended := s.status == "revoked"
		switch {
		case out.What == "perhaps":
			if ended {
				return []any{s}
			}
			return []any{s, next}
		case out.What == "ok" && (!ended || in.Do == "revoke"):
			return []any{next}
		case out.What == "revoked" && ended, out.Err != "" && out.What != "revoked":
			return []any{s}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(request), output.(reply)
		return fmt.Sprintf("%s %s → %s %s", in.Do, in.Scope, out.What, out.Scope)
	},
}).ToModel()

// What three processes are told of keys that they change at the same time, with nothing
// remembered, is as if the changes had been made one after the other; and with what is
// remembered, no revocation goes unseen for longer than MaxStaleness.
func TestHistoriesAcrossProcesses(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		s := setup{Store: e.fresh(t), MaxStaleness: 300 * time.Millisecond}
		all := fleet(t, same(3, s)...)
		seed := rand.Uint64()
		if text := os.Getenv("FOB_PROOF_SEED"); text != "" {
			var err error
			seed, err = strconv.ParseUint(text, 10, 64)
			require.NoError(t, err)
		}
		keys := 6
		if testing.Short() {
			keys = 2
		}
		for n := range keys {
			history, cached := lifeOfAKey(t, all, seed+uint64(n))
			result, _ := porcupine.CheckOperationsVerbose(keyModel, history, 0)
			require.Equal(t, porcupine.Ok, result, "seed %d: %s", seed+uint64(n), describe(history))
			gone := int64(math.MaxInt64)
			for _, op := range history {
				if in, out := op.Input.(request), op.Output.(reply); in.Do == "revoke" && out.What == "ok" {
					gone = min(gone, out.Ended)
				}
			}
			require.NotEqual(t, int64(math.MaxInt64), gone)
			for _, r := range cached {
				require.False(t, r.What == "ok" && r.Began > gone+int64(s.MaxStaleness), "seed %d: accepted %v after the revocation", seed, time.Duration(r.Began-gone))
			}
			require.Equal(t, "revoked", all[n%3].sure(request{Do: "fresh", Text: history[0].Input.(request).Text}).What)
		}
	})
}

// lifeOfAKey lets all processes do random things to one key, until one of them revokes
// it and a little longer.
func lifeOfAKey(t *testing.T, all []*member, seed uint64) (history []porcupine.Operation, cached []reply) {
	t.Helper()
	key := all[0].must(request{Do: "issue", Subject: fmt.Sprint("app-", seed)})
	var mu sync.Mutex // guards the results
	var wg sync.WaitGroup
	for worker := range 2 * len(all) {
		m := all[worker%len(all)]
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(worker)))
			for n := range 60 {
				req := request{Do: "fresh", ID: key.ID, Text: key.Text}
				switch dice := r.IntN(100); {
				case n == 45 && worker == 0:
					req.Do = "revoke"
				case dice < 30:
					req.Do = "verify"
				case dice < 40:
					req.Do = "disable"
				case dice < 50:
					req.Do = "enable"
				case dice < 60:
					req.Do, req.Scope = "scope", fmt.Sprintf("scope:%d-%d", worker, n)
				}
				out, err := m.wait(m.send(req))
				if err != nil {
					t.Error(err)
					return
				}
				op := porcupine.Operation{ClientId: worker, Input: req, Call: out.Began, Output: out, Return: out.Ended}
				if out.What == "perhaps" {
					op.Return = math.MaxInt64 // at any time, or never
				}
				mu.Lock()
				if req.Do == "verify" {
					cached = append(cached, out)
				} else {
					history = append(history, op)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history, cached
}

func describe(history []porcupine.Operation) (text string) {
	for _, op := range history {
		text += fmt.Sprintf("\n%d %d  %d  %s", op.Call, op.Return, op.ClientId, keyModel.DescribeOperation(op.Input, op.Output))
	}
	return text
}

// The model refuses what no key does: otherwise it would prove nothing.
func TestTheModelBites(t *testing.T) {
	op := func(do, what string, at int64) porcupine.Operation {
		return porcupine.Operation{Input: request{Do: do}, Output: reply{What: what, Scope: "scope:0", Err: map[string]string{"ok": ""}[what]}, Call: at, Return: at + 1}
	}
	refused := func(what string, at int64) porcupine.Operation {
		return porcupine.Operation{Input: request{Do: "fresh"}, Output: reply{What: what, Err: what, Reject: true}, Call: at, Return: at + 1}
	}
	require.True(t, porcupine.CheckOperations(keyModel, []porcupine.Operation{op("fresh", "ok", 0), op("revoke", "ok", 2), refused("revoked", 4)}))
	require.False(t, porcupine.CheckOperations(keyModel, []porcupine.Operation{op("revoke", "ok", 0), op("fresh", "ok", 2)}), "accepted after it was revoked")
	require.False(t, porcupine.CheckOperations(keyModel, []porcupine.Operation{op("revoke", "ok", 0), op("enable", "ok", 2)}), "brought back")
	require.False(t, porcupine.CheckOperations(keyModel, []porcupine.Operation{refused("disabled", 0)}), "nobody disabled it")
}
