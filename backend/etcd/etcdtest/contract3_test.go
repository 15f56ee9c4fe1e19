//go:build !race

package etcdtest_test

import "testing"

// TestContractOfThree runs the whole suite once more, against a cluster. The race
// detector has seen every line of the store with one member, and makes this take
// minutes.
func TestContractOfThree(t *testing.T) {
	if testing.Short() {
		return
	}
	records := 1000 // a long list is the same with one member
	if long {
		records = 0
	}
	contract(t, 3, records)
}
