package record_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

// Texts that are parts of each other, that look like an owner, and that begin with what can
// be a length.
var names = []string{"a", "ci", "aci", "1ci", "3\x02ci", "\x02ci", "\x80", "é", "e\u0301", strings.Repeat("n", 127), strings.Repeat("n", 128), strings.Repeat("n", 256)}

// An owner tells kind, account and name, and no two subjects have the same one.
func TestAnOwnerIsOfOneSubject(t *testing.T) {
	seen := map[string]bool{}
	for kind := uint8(1); kind <= 2; kind++ {
		for _, account := range append([]string{""}, names...) {
			for _, name := range names {
				owner := record.Owner(kind, account, name)
				require.False(t, seen[owner], "%q", owner)
				seen[owner] = true
				gotKind, gotAccount, gotName, ok := record.ParseOwner(owner)
				require.True(t, ok, "%q", owner)
				require.Equal(t, []any{kind, account, name}, []any{gotKind, gotAccount, gotName})
				require.True(t, record.KnownSubject(owner))
			}
		}
	}
	require.Equal(t, "1ci", record.Owner(1, "", "ci"), "as it was before there were accounts")
	require.Equal(t, "4\x04acmeann", record.Owner(2, "acme", "ann"))
}

func TestWhatIsNoOwner(t *testing.T) {
	for name, owner := range map[string]string{
		"nothing":               "",
		"no name":               "1",
		"no kind":               "0ci",
		"a kind of later":       "5\x01aci",
		"letters":               "ci",
		"no account":            "3",
		"an empty account":      "3\x00ci",
		"a length beyond":       "3\x05acme",
		"an account, no name":   "3\x04acme",
		"a length without end":  "3\x80\x80\x80\x80ci",
		"a length cut off":      "3\x80",
		"a length written long": "3\x84\x00acmeci",
	} {
		kind, account, rest, ok := record.ParseOwner(owner)
		require.False(t, ok, name)
		require.False(t, record.KnownSubject(owner), name)
		if name != "no name" && name != "an account, no name" {
			require.Equal(t, []any{uint8(0), "", ""}, []any{kind, account, rest}, name)
		}
	}
}

// Two labels are the same only if they say the same of the same account.
func TestLabelsNeverMeet(t *testing.T) {
	seen := map[string]string{}
	is := func(label, what string) {
		t.Helper()
		require.Empty(t, seen[label], "%s is also", what)
		seen[label] = what
	}
	for _, one := range names {
		is(record.AccountLabel(one), "account "+one)
		is(record.RoleLabel(one), "role "+one)
		is(record.TagLabel("", one), "tag "+one)
		for _, account := range names {
			is(record.TagLabel(account, one), "tag "+one+" of "+account)
		}
	}
	require.Equal(t, []string{"aacme", "rviewer", "tx"}, record.Labels("tx", "", "aacme", "rviewer", "tx"))
	require.Empty(t, record.Labels("", ""))
}

// The records of a subject and of an account have IDs of their own.
func TestHoldersHaveRecordsOfTheirOwn(t *testing.T) {
	require.Zero(t, record.AccountID(""))
	seen := []record.ID{{}}
	for _, id := range []record.ID{
		record.AccountID("acme"), record.AccountID("Acme"), record.SubjectID("acme"), record.SubjectID(record.Owner(1, "", "acme")),
		record.SubjectID(record.Owner(2, "", "acme")), record.SubjectID(record.Owner(1, "acme", "acme")),
	} {
		require.False(t, slices.Contains(seen, id))
		seen = append(seen, id)
	}
}

// FuzzParseOwner: what is an owner is the owner of what it says, byte for byte.
func FuzzParseOwner(f *testing.F) {
	f.Add("3\x04acmeci")
	f.Fuzz(func(t *testing.T, owner string) {
		if kind, account, name, ok := record.ParseOwner(owner); ok {
			require.Equal(t, owner, record.Owner(kind, account, name))
			require.NotEmpty(t, name)
		}
	})
}
