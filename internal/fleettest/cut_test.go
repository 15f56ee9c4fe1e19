package fleettest_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Cut off from the store, slowed down, or connected to somebody who says nothing any
// more: nobody accepts for longer than its MaxStaleness allows, no receipt says less
// than that, and everybody comes back by itself.
func TestABrokenConnectionAcceptsNothingForLong(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		t.Parallel()
		at := e.fresh(t)
		if _, l := e.through(t, at); l == nil {
			t.Log("there is no connection to break: see TestAProcessThatStoodStill")
			return
		}
		for how, damage := range faults {
			t.Run(how, func(t *testing.T) {
				t.Parallel() // it mostly waits
				strict, l1 := e.through(t, at)
				patient, l2 := e.through(t, at)
				all := fleet(t,
					setup{Store: at, MaxStaleness: 2 * time.Second},
					setup{Store: strict, MaxStaleness: 500 * time.Millisecond},
					setup{Store: patient, MaxStaleness: 3 * time.Second},
				)
				limit := []time.Duration{0, 500 * time.Millisecond, 3 * time.Second}
				key, other := all[0].must(request{Do: "issue"}), all[0].must(request{Do: "issue"})
				for _, m := range all {
					m.knows(key.Text)
					m.knows(other.Text)
				}
				var watching []chan reply
				for _, m := range all[1:] {
					watching = append(watching, m.watch(request{Text: key.Text, For: 5 * time.Second}))
				}
				damage(l1)
				damage(l2)
				time.Sleep(100 * time.Millisecond)
				revoked := all[0].must(request{Do: "revoke", ID: key.ID})
				require.Equal(t, 3*time.Second, revoked.By, "the receipt knows of the patient one")
				for i, c := range watching {
					r, err := all[i+1].wait(c)
					require.NoError(t, err)
					late := time.Duration(r.Watch.Last - revoked.Ended)
					require.LessOrEqual(t, late, limit[i+1], "%+v", r.Watch)
					require.LessOrEqual(t, late, revoked.By)
					t.Logf("MaxStaleness %v: accepted until %v after the revocation, could not be checked %d times", limit[i+1], max(0, late), r.Watch.Unsure)
				}
				require.NoError(t, l1.Mend())
				require.NoError(t, l2.Mend())
				for _, m := range all {
					m.follows()
					r := m.sure(request{Do: "verify", Text: key.Text})
					require.Equal(t, "revoked", r.What, r.Err)
					m.must(request{Do: "verify", Text: other.Text})
				}
				if how == "cut" || how == "half open" {
					events := all[1].must(request{Do: "health"}).Health.Events
					require.Contains(t, events, "feed_lost")
					require.Contains(t, events, "feed_resumed")
				}
			})
		}
	})
}

// RevokeEverywhere waits for those that cannot be reached.
func TestRevokeEverywhereWaitsForWhoIsCutOff(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		t.Parallel()
		at := e.fresh(t)
		apart, l := e.through(t, at)
		all := fleet(t, setup{Store: at, MaxStaleness: time.Second}, setup{Store: apart, MaxStaleness: 3 * time.Second})
		key := all[0].must(request{Do: "issue"})
		all[1].knows(key.Text)
		watching := all[1].watch(request{Text: key.Text, For: 5 * time.Second})
		if l != nil {
			l.Silence()
		}
		revoked := all[0].must(request{Do: "everywhere", ID: key.ID})
		require.GreaterOrEqual(t, time.Duration(revoked.Ended-revoked.Began), 3*time.Second)
		r, err := all[1].wait(watching)
		require.NoError(t, err)
		require.NotZero(t, r.Watch.Accepted)
		require.Less(t, r.Watch.Last, revoked.Ended, "accepted after everybody refuses")
	})
}

// A process that stood still for a while believes nothing of what it knew before: its
// clock went on.
func TestAProcessThatStoodStill(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		t.Parallel()
		all := fleet(t, same(2, setup{Store: e.fresh(t), MaxStaleness: 500 * time.Millisecond})...)
		for range 3 {
			key := all[0].must(request{Do: "issue"})
			all[1].must(request{Do: "verify", Text: key.Text})
			all[1].signal(syscall.SIGSTOP)
			all[0].must(request{Do: "revoke", ID: key.ID})
			time.Sleep(600 * time.Millisecond)
			all[1].signal(syscall.SIGCONT)
			r := all[1].sure(request{Do: "verify", Text: key.Text})
			require.Equal(t, "revoked", r.What, r.Err)
			all[1].follows()
		}
	})
}
