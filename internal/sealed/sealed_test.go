package sealed_test

import (
	"testing"

	"github.com/fobkit/fob/internal/sealed"
	"github.com/stretchr/testify/require"
)

// TestOnlyTheSameSecretOpens what was sealed, for the same record and purpose.
func TestOnlyTheSameSecretOpens(t *testing.T) {
	seal, err := sealed.Cipher([]byte("secret"), []byte("record"), "answer")
	require.NoError(t, err)
	text := seal.Seal(nil, nil, []byte("text"), []byte("record"))
	require.NotEqual(t, text, seal.Seal(nil, nil, []byte("text"), []byte("record")), "each has a nonce of its own")
	for name, c := range map[string]struct {
		secret, salt, purpose, bound string
		opens                        bool
	}{
		"the same":        {"secret", "record", "answer", "record", true},
		"another secret":  {"Secret", "record", "answer", "record", false},
		"another record":  {"secret", "Record", "answer", "record", false},
		"another purpose": {"secret", "record", "answers", "record", false},
		"bound otherwise": {"secret", "record", "answer", "Record", false},
	} {
		aead, err := sealed.Cipher([]byte(c.secret), []byte(c.salt), c.purpose)
		require.NoError(t, err)
		opened, err := aead.Open(nil, nil, text, []byte(c.bound))
		require.Equal(t, c.opens, err == nil, name)
		if c.opens {
			require.Equal(t, "text", string(opened), name)
		}
	}
}
