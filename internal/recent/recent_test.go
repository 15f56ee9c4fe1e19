package recent_test

import (
	"fmt"
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

// BenchmarkNote notes things of which each is new, after a number of others: it takes as
// long however many there are.
func BenchmarkNote(b *testing.B) {
	for _, before := range []int{0, 100, recent.Max} {
		b.Run(fmt.Sprintf("after=%d", before), func(b *testing.B) {
			for b.Loop() {
				var l recent.List[string, level]
				for i := range before {
					l.Note(at(0), names[i], 1)
				}
				for _, name := range names[before : before+recent.Max] {
					l.Note(at(0), name, 1)
				}
				done, whole := l.All(at(0))
				if len(done) != recent.Max || whole != (before == 0) {
					b.Fatal(len(done), whole)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(before+recent.Max), "ns/note")
		})
	}
}

// names are different things that something is done to.
var names = func() (all [2 * recent.Max]string) {
	for i := range all {
		all[i] = fmt.Sprintf("user-%d", i)
	}
	return all
}()
