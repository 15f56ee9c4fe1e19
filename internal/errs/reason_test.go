package errs_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/stretchr/testify/require"
)

// words are the words of docs/errors.md, and an error for each.
var words = map[string]error{
	"rejected": errs.ErrRejected, "malformed": errs.ErrMalformed, "unknown": errs.ErrUnknown, "expired": errs.ErrExpired, "retired": errs.ErrRetired,
	"not_yet_valid": errs.ErrNotYetValid, "revoked": errs.ErrRevoked, "disabled": errs.ErrDisabled, "environment": errs.ErrWrongEnvironment,
	"length": errs.ErrKeyLength, "prefix": errs.ErrKeyPrefix, "version": errs.ErrKeyVersion, "alphabet": errs.ErrKeyAlphabet, "checksum": errs.ErrKeyChecksum,
	"token_format": errs.ErrTokenFormat, "token_length": errs.ErrTokenLength, "token_protocol": errs.ErrTokenProtocol, "token_key": errs.ErrTokenKey,
	"token_seal": errs.ErrTokenSeal, "claims": errs.ErrClaims, "lifetime": errs.ErrTokenLifetime, "issuer": errs.ErrWrongIssuer, "audience": errs.ErrWrongAudience,
	"replayed": errs.ErrReplayed,
	"scope":    errs.ErrScope, "not_found": errs.ErrNotFound, "conflict": errs.ErrConflict, "already": errs.ErrAlready, "contended": errs.ErrContended,
	"invalid": errs.ErrInvalid, "idempotency": errs.ErrIdempotency, "indeterminate": errs.ErrIndeterminate, "busy": errs.ErrBusy, "corrupt": errs.ErrCorrupt,
	"secret": errs.ErrSecret, "pepper": errs.ErrPepper, "seal_key": errs.ErrSealKey, "skew": errs.ErrSkew, "closed": errs.ErrClosed, "panicked": errs.ErrPanicked,
	"canceled": context.Canceled, "timeout": context.DeadlineExceeded, "unsupported": errors.ErrUnsupported, "unavailable": errDown,
}

func TestEveryErrorHasItsWord(t *testing.T) {
	require.Empty(t, errs.Reason(nil))
	require.Equal(t, "closed", errs.Reason(backend.ErrClosed))
	require.Equal(t, "no_light", errs.Reason(errs.New("no_light", "elsewhere: dark")))
	for word, err := range words {
		t.Run(word, func(t *testing.T) {
			require.Equal(t, word, errs.Reason(err))
			require.Equal(t, word, errs.Reason(fmt.Errorf("fob: verify: %w", err)))
			require.Equal(t, word, errs.Reason(errs.About(backend.ID{1}, err)), "whichever credential it is about")
			require.Regexp(t, "^[a-z_]{1,16}$", word)
		})
	}
}

// An error of which no word is known would be counted as an outage of the store.
func TestEveryValueHereHasAWordOfItsOwn(t *testing.T) {
	inside := []string{
		"ErrReadBack",  // why retry.Do makes another try, and never what it returns
		"ErrTakenOver", // likewise
	}
	var names []string
	for _, file := range []string{"errs.go", "classify.go", "reason.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for _, name := range v.Names {
					if name.IsExported() && !slices.Contains(inside, name.Name) {
						names = append(names, name.Name)
					}
				}
			}
			return true
		})
	}
	own := 0
	for word, err := range words {
		if strings.HasPrefix(fmt.Sprintf("%T", err), "*errs.") {
			own++
			require.Equal(t, word, errs.Reason(err))
		}
	}
	require.Len(t, names, own, "each of %v must be in words", names)
}

// The list is read by the people who write the alarms.
func TestTheWordsAreInTheirPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors.md")
	require.NoError(t, err)
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(page, -1) {
		listed = append(listed, string(row[1]))
	}
	want := []string{"no_credential", "bad_request"} // of httpauth
	for word := range words {
		want = append(want, word)
	}
	require.ElementsMatch(t, want, listed)

	face, err := os.ReadFile("../../errors.go")
	require.NoError(t, err)
	for _, value := range regexp.MustCompile("`(Err[A-Za-z]+)`").FindAllSubmatch(page, -1) {
		require.Regexp(t, `(?m)^(var |\t)`+string(value[1])+" = ", string(face), "what the page says to compare with")
	}
}

func TestTheOutermostReasonIsTold(t *testing.T) {
	for word, err := range map[string]error{
		"indeterminate": errs.Settle(true, errs.ErrRevoked),
		"corrupt":       errs.OfStore("read", backend.ErrCorrupt),
		"conflict":      errs.OfStore("write", fmt.Errorf("store: %w (%w)", backend.ErrConflict, context.Canceled)),
		"contended":     fmt.Errorf("%w (%w)", errs.ErrContended, context.DeadlineExceeded),
		"timeout":       errs.OfStore("read", fmt.Errorf("store: %w", context.DeadlineExceeded)),
		"unavailable":   errs.Unclassified(errs.ErrRevoked),
	} {
		require.Equal(t, word, errs.Reason(err))
	}
}

func TestARejectionIsAboutACredential(t *testing.T) {
	id := backend.ID{15: 1}
	err := fmt.Errorf("fob: refresh: %w", errs.About(id, errs.ErrRetired))
	found, known := errs.RejectedID(err)
	require.True(t, known)
	require.Equal(t, id, found)
	for _, is := range []error{errs.ErrRetired, errs.ErrExpired, errs.ErrRejected} {
		require.ErrorIs(t, err, is)
	}
	require.EqualError(t, err, "fob: refresh: fob: credential rotated out")

	for _, other := range []error{nil, errDown, errs.ErrCorrupt, errs.ErrScope} {
		require.Equal(t, other, errs.About(id, other), "it is no rejection")
	}
	for _, other := range []error{nil, errDown, errs.ErrRevoked} {
		found, known := errs.RejectedID(other)
		require.False(t, known)
		require.Zero(t, found)
	}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { err = errs.About(id, errs.ErrRevoked) }), 1.0)
}
