package guides_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sources are the files that the guides show parts of.
var sources = map[string]string{
	"multi-tenant.md":      "multi_tenant_test.go",
	"self-service-keys.md": "self_service_test.go",
	"login.md":             "login_test.go",
	"testing.md":           "handlers_test.go",
	"moving-in.md":         "moving_in_test.go",
	"postgresql.md":        "../../examples/saas/main.go",
}

// Each block of Go in a guide stands in its source, line by line, with the same indentation
// or with less.
func TestTheGuidesShowWhatIsCompiled(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	require.Len(t, pages, len(sources), "every guide has a source")
	for _, page := range pages {
		source, err := os.ReadFile(sources[page])
		require.NoError(t, err, page)
		blocks := goBlocks(t, page)
		require.NotEmpty(t, blocks, page)
		for _, block := range blocks {
			found := false
			for indent := ""; len(indent) < 4 && !found; indent += "\t" {
				found = strings.Contains(string(source), indented(block, indent))
			}
			require.True(t, found, "%s shows what is not in %s:\n%s", page, sources[page], block)
		}
	}
}

// goBlocks returns the blocks of Go of a page, each with a line feed before and after it.
func goBlocks(t *testing.T, page string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for i, part := range strings.Split("\n"+string(text), "\n```") {
		if block, ok := strings.CutPrefix(part, "go\n"); ok {
			require.Equal(t, 1, i%2, "%s: a block that is not closed", page)
			blocks = append(blocks, "\n"+block+"\n")
		}
	}
	return blocks
}

func indented(block, indent string) string {
	lines := strings.Split(block, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = indent + line
		}
	}
	return strings.Join(lines, "\n")
}

// call makes a request of a handler.
func call(t *testing.T, h http.Handler, credential, method, path, body string) (status int, text string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	answer, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return w.Code, string(answer)
}
