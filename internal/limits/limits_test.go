package limits_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/limits"
	"github.com/stretchr/testify/require"
)

func TestTextHasALengthAndNoControlCharacters(t *testing.T) {
	for _, c := range []struct {
		text, problem string
	}{
		{"a", ""},
		{"äöü", ""},
		{"1234567", ""},
		{"", "name of 0 bytes, want 1 to 7"},
		{"12345678", "name of 8 bytes, want 1 to 7"},
		{"ab\ncd", "name with control characters or broken UTF-8"},
		{"ab\x85cd", "name with control characters or broken UTF-8"},
		{"ab\u0085", "name with control characters or broken UTF-8"},
	} {
		err := limits.CheckText("name", c.text, 1, 7)
		require.Equal(t, c.problem == "", limits.IsText(c.text, 7), "%q", c.text)
		if c.problem == "" {
			require.NoError(t, err, "%q", c.text)
			continue
		}
		require.ErrorIs(t, err, errs.ErrInvalid)
		require.EqualError(t, err, errs.ErrInvalid.Error()+": "+c.problem)
	}
	require.NoError(t, limits.CheckText("name", "", 0, 7))
}

func TestTimesLieInTheYears1970To9999(t *testing.T) {
	date := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, fits := range []time.Time{{}, date(1970), date(10000).Add(-1)} {
		require.NoError(t, limits.CheckTime("since", fits))
	}
	for _, wrong := range []time.Time{date(1970).Add(-1), date(10000)} {
		require.ErrorIs(t, limits.CheckTime("since", wrong), errs.ErrInvalid)
	}
}

func TestTagsAreCopiedOnce(t *testing.T) {
	given := []string{"b", "a", "b"}
	tags, err := limits.Tags(given)
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a"}, tags)
	require.Equal(t, []string{"b", "a", "b"}, given)

	for _, wrong := range [][]string{make([]string, 17), {""}, {strings.Repeat("a", 65)}} {
		_, err := limits.Tags(wrong)
		require.ErrorIs(t, err, errs.ErrInvalid)
	}
}

func TestListsOfTexts(t *testing.T) {
	for problem, list := range map[string][]string{
		"":                       {"a", "b", "1234567"},
		"0 actions, want 1 to 3": {},
		"4 actions, want 1 to 3": {"a", "b", "c", "d"},
		"actions: number 0, of 0 bytes, is not allowed or is named twice": {""},
		"actions: number 1, of 8 bytes, is not allowed or is named twice": {"a", "12345678"},
		"actions: number 1, of 2 bytes, is not allowed or is named twice": {"a", "b\n"},
		"actions: number 2, of 1 bytes, is not allowed or is named twice": {"a", "b", "a"},
	} {
		err := limits.CheckList("actions", list, 3, 7)
		if problem == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, errs.ErrInvalid)
		require.EqualError(t, err, errs.ErrInvalid.Error()+": "+problem)
	}
}
