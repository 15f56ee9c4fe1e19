package fleettest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rounds is how many revocations a test of how far they reach makes.
const rounds = 25

// After Revoke has returned in one process every other one refuses: within MaxStaleness
// whatever happens, and as soon as the feed tells, which is what the log says.
func TestARevocationReachesEveryProcess(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		for _, n := range []int{2, 8} {
			if n > 2 && testing.Short() {
				continue
			}
			t.Run(fmt.Sprintf("%d processes", n), func(t *testing.T) {
				s := setup{Store: e.fresh(t), MaxStaleness: 2 * time.Second}
				delays := revocations(t, fleet(t, same(n, s)...), rounds)
				require.LessOrEqual(t, delays[len(delays)-1], s.MaxStaleness)
				t.Logf("%d delays: median %v, 99 of 100 within %v, longest %v", len(delays), quantile(delays, 50), quantile(delays, 99), delays[len(delays)-1])
			})
		}
	})
}

// BenchmarkRevocationReaches is the same, for the figures.
func BenchmarkRevocationReaches(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres", "etcd"} {
		for _, n := range []int{2, 8} {
			b.Run(fmt.Sprintf("%s/%d_processes", kind, n), func(b *testing.B) {
				s := setup{Store: engines.get(b, kind).fresh(b), MaxStaleness: 2 * time.Second}
				all := fleet(b, same(n, s)...)
				b.ResetTimer()
				delays := revocations(b, all, max(b.N, rounds))
				b.ReportMetric(float64(quantile(delays, 50).Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(quantile(delays, 99).Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(delays[len(delays)-1].Microseconds())/1000, "max-ms")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// revocations revokes keys in one process after the other while all the others verify
// them, and returns how long after each return somebody still accepted, in order.
func revocations(t testing.TB, all []*member, n int) []time.Duration {
	t.Helper()
	var delays []time.Duration
	for i := range n {
		here := all[i%len(all)]
		key := here.must(request{Do: "issue", Subject: fmt.Sprintf("app-%d", i)})
		watching := make(map[*member]chan reply)
		for _, m := range all {
			m.must(request{Do: "verify", Text: key.Text})
			if m != here {
				watching[m] = m.watch(request{Text: key.Text})
			}
		}
		revoked := here.must(request{Do: "revoke", ID: key.ID})
		require.Equal(t, "revoked", here.do(request{Do: "verify", Text: key.Text}).What, "here at once")
		for m, c := range watching {
			r, err := m.wait(c)
			require.NoError(t, err)
			require.NotZero(t, r.Watch.Accepted, "it was accepted before: the cache is warm")
			require.NotZero(t, r.Watch.Refused, "never refused")
			if r.Watch.Unsure > 0 {
				t.Logf("could not be checked %d times: the machine is busy", r.Watch.Unsure)
			}
			delays = append(delays, max(0, time.Duration(r.Watch.Last-revoked.Ended)))
		}
	}
	slices.Sort(delays)
	return delays
}

// quantile is the value that so many of a hundred do not exceed.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// What ends many credentials at once, and tokens, which nobody reads a record for,
// reaches every process too.
func TestEveryKindOfRevocationReachesEveryProcess(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		s := setup{Store: e.fresh(t), MaxStaleness: 2 * time.Second}
		all := fleet(t, same(2, s)...)
		here, there := all[0], all[1]
		for how, ends := range map[string]func(key, tokens reply) request{
			"the key":     func(key, _ reply) request { return request{Do: "revoke", ID: key.ID} },
			"the family":  func(_, tokens reply) request { return request{Do: "revoke", ID: tokens.ID} },
			"the subject": func(reply, reply) request { return request{Do: "revoke subject", Subject: "app-42"} },
			"all tokens":  func(reply, reply) request { return request{Do: "revoke tokens"} },
		} {
			key := here.must(request{Do: "issue", Subject: "app-42"})
			tokens := here.do(request{Do: "exchange", Text: key.Text})
			for tokens.Err != "" { // all tokens of this second were just revoked
				time.Sleep(100 * time.Millisecond)
				tokens = here.do(request{Do: "exchange", Text: key.Text})
			}
			there.must(request{Do: "verify", Text: tokens.Text})
			watching := there.watch(request{Text: tokens.Text})
			revoked := here.must(ends(key, tokens))
			r, err := there.wait(watching)
			require.NoError(t, err)
			require.NotZero(t, r.Watch.Refused, "%s: never refused", how)
			require.LessOrEqual(t, time.Duration(r.Watch.Last-revoked.Ended), s.MaxStaleness, how)
			require.True(t, there.do(request{Do: "refresh", Text: tokens.Next}).Reject, how)
		}
	})
}

// What is suspended elsewhere is off here within the bound, everything below it at once, and
// comes back.
func TestASuspensionReachesEveryProcessAndEnds(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		s := setup{Store: e.fresh(t), MaxStaleness: 2 * time.Second}
		all := fleet(t, same(2, s)...)
		here, there := all[0], all[1]
		key := here.must(request{Do: "issue", Subject: "app-42", Account: "acme"})
		tokens := here.must(request{Do: "exchange", Text: key.Text})
		stranger := here.must(request{Do: "issue", Subject: "app-42", Account: "umbrella"})
		for how, target := range map[string]request{
			"the account": {Account: "acme"}, "the subject": {Subject: "app-42", Account: "acme"}, "the session": {ID: tokens.ID},
		} {
			there.must(request{Do: "verify", Text: tokens.Text})
			there.must(request{Do: "verify", Text: stranger.Text})
			watching := there.watch(request{Text: tokens.Text})
			target.Do = "disable"
			disabled := here.must(target)
			r, err := there.wait(watching)
			require.NoError(t, err)
			require.NotZero(t, r.Watch.Refused, "%s: never refused", how)
			require.LessOrEqual(t, time.Duration(r.Watch.Last-disabled.Ended), s.MaxStaleness, how)
			require.True(t, there.do(request{Do: "refresh", Text: tokens.Next}).Reject, how)
			if target.Account != "" {
				require.True(t, there.do(request{Do: "verify", Text: key.Text}).Reject, how)
			}
			there.must(request{Do: "verify", Text: stranger.Text})
			target.Do = "enable"
			there.must(target)
			there.must(request{Do: "verify", Text: tokens.Text})
			for enough := time.Now().Add(time.Minute); here.do(request{Do: "verify", Text: tokens.Text}).Reject; {
				require.True(t, time.Now().Before(enough), "%s: still off here", how)
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
}
