//go:build !race

package etcdtest_test

import "testing"

// TestContractOfThree runs the whole suite once more, against a cluster. The race
// detector has seen every line of the store with one member, and makes this take
// minutes.
func TestContractOfThree(t *testing.T) {
	if !testing.Short() {
		contract(t, 3)
	}
}
