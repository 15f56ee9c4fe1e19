//go:build !race

package etcdtest_test

import (
	"testing"

	"github.com/fobkit/fob/backend/backendtest"
)

// TestContractOfThree runs what several members can have a part in once more, against a
// cluster (with FOB_LONG the whole suite). The race detector has seen every line of the
// store with one member, and makes this take minutes.
func TestContractOfThree(t *testing.T) {
	if testing.Short() {
		return
	}
	suite := backendtest.Options{Groups: []string{"get-put-delete", "cas", "context", "close", "durability", "feed"}}
	if long {
		suite = backendtest.Options{}
	}
	contract(t, 3, suite)
}
