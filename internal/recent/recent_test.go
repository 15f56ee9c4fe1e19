package recent_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/recent"
	"github.com/stretchr/testify/require"
)

// level only rises.
type level int

func (l level) Join(older level) level { return max(l, older) }

func at(d time.Duration) clock.Moment { return clock.Moment{Mono: int64(d)} }

func TestWhatIsOldIsForgotten(t *testing.T) {
	var l recent.List[string, level]
	done, whole := l.All(at(0))
	require.Empty(t, done)
	require.True(t, whole)
	l.Note(at(0), "a", 1)
	l.Note(at(time.Minute), "b", 2)
	done, whole = l.All(at(recent.For - 1))
	require.Equal(t, []level{1, 2}, done)
	require.True(t, whole)
	done, whole = l.All(at(recent.For))
	require.Equal(t, []level{2}, done)
	require.True(t, whole, "what is too old is none of it")
}

func TestWhatIsDoneAgainIsRememberedOnce(t *testing.T) {
	var l recent.List[string, level]
	l.Note(at(0), "a", 3)
	l.Note(at(0), "b", 2)
	l.Note(at(time.Minute), "a", 1)
	done, _ := l.All(at(recent.For - 1))
	require.Equal(t, []level{2, 3}, done, "as of the last time, with all that it ever said")
	done, _ = l.All(at(recent.For))
	require.Equal(t, []level{3}, done)
}

func TestWhatMakesRoomIsMissing(t *testing.T) {
	var l recent.List[int, level]
	for i := range recent.Max {
		l.Note(at(time.Duration(i)), i, level(i))
	}
	now := at(time.Second)
	done, whole := l.All(now)
	require.Len(t, done, recent.Max)
	require.True(t, whole)
	l.Note(now, 1, 0)
	_, whole = l.All(now)
	require.True(t, whole, "what is there already needs no room")
	l.Note(now, recent.Max, recent.Max)
	done, whole = l.All(now)
	require.Len(t, done, recent.Max)
	require.Equal(t, level(2), done[0], "the oldest made room")
	require.False(t, whole)

	// Until it would have been forgotten.
	_, whole = l.All(at(recent.For - 1))
	require.False(t, whole)
	_, whole = l.All(at(recent.For))
	require.True(t, whole)
}
