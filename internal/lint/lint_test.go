package lint_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fobkit/fob/internal/lint"
)

// TestRepository runs every rule on this repository.
func TestRepository(t *testing.T) {
	repo, err := os.OpenRoot("../..")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, repo.Close()) })
	tree, err := lint.Load(repo.FS())
	require.NoError(t, err)
	require.NotEmpty(t, tree.Go, "no Go file was found: the rules would pass on nothing")
	for _, p := range tree.Check() {
		t.Error(p)
	}
}
