package memory_test

import (
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
)

func TestContract(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Store { return memory.New() }, backendtest.Options{})
}
