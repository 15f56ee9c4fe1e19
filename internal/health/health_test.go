package health_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/health"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

var (
	errFirst  = errors.New("first")
	errSecond = errors.New("second")
)

// at is a moment so long after the process began.
func at(d time.Duration) clock.Moment {
	return clock.Moment{MS: 1_000_000 + d.Milliseconds(), Mono: int64(d)}
}

func TestAFeedIsLostAndFoundAgain(t *testing.T) {
	var f health.Feed
	wall := func(d time.Duration) time.Time { return time.UnixMilli(at(d).MS).UTC() }
	require.Equal(t, health.FeedState{}, f.State(), "it has not begun, and was not lost")
	require.False(t, f.Begun())
	require.True(t, f.Begun(), "everything is read a second time")
	require.False(t, f.Proved(at(time.Second)), "it was not lost before")
	require.Equal(t, health.FeedState{Following: true}, f.State())

	f.Lost(errFirst, wall(2*time.Second))
	f.Lost(errSecond, wall(3*time.Second))
	require.Equal(t, health.FeedState{Err: errSecond, LostAt: wall(2 * time.Second), Failures: 1}, f.State())
	require.NoError(t, f.Silent(at(time.Hour), 0), "it is lost already")

	require.True(t, f.Proved(at(time.Hour)))
	require.False(t, f.Proved(at(time.Hour)))
	require.Equal(t, health.FeedState{Following: true}, f.State())
}

func TestAFeedThatIsSilentIsLost(t *testing.T) {
	const long = 10 * backend.HeartbeatEvery
	var f health.Feed
	f.Proved(at(time.Minute))
	require.NoError(t, f.Silent(at(time.Minute+long-1), time.Millisecond))
	require.NoError(t, f.Silent(at(time.Minute+2*long-1), 2*long), "an answer is believed for longer")
	require.True(t, f.State().Following)
	silent := f.Silent(at(time.Minute+2*long), 2*long)
	require.Error(t, silent)
	require.NoError(t, f.Silent(at(time.Minute+3*long), 2*long), "that is told once")
	require.Equal(t, health.FeedState{Err: silent, LostAt: time.UnixMilli(at(time.Minute + 2*long).MS).UTC()}, f.State())
	require.True(t, f.Proved(at(time.Hour)))

	require.Error(t, new(health.Feed).Silent(at(long), 0), "it has proved nothing since the process began")
}

func TestProblemsAreNewsOnce(t *testing.T) {
	var p health.Problems
	require.Empty(t, p.List())
	require.False(t, p.Set("b", nil))
	require.True(t, p.Set("b", errFirst))
	require.False(t, p.Set("b", errSecond), "it was wrong before")
	require.True(t, p.Set("a", errFirst))
	require.Equal(t, []error{errFirst, errSecond}, p.List())
	require.False(t, p.Set("b", nil))
	require.Equal(t, []error{errFirst}, p.List())
	require.True(t, p.Set("b", errFirst))
}

func TestRecordsThatCannotBeReadAreBounded(t *testing.T) {
	var p health.Problems
	for i := range health.MaxProblems {
		require.True(t, p.SetRecord(record.ID{15: byte(i)}, errFirst))
	}
	more := record.ID{15: health.MaxProblems}
	require.False(t, p.SetRecord(more, errFirst))
	require.False(t, p.SetRecord(record.ID{}, errSecond), "it is one of them")
	require.True(t, p.Set("clock", errFirst), "what is no record is told beside them")
	require.Len(t, p.List(), health.MaxProblems+1)
	require.Equal(t, errFirst, p.List()[0])
	require.Equal(t, errSecond, p.List()[1], fmt.Sprintf("%v is ordered by its name", p.List()))

	p.SetRecord(record.ID{}, nil)
	p.Set("clock", nil)
	require.Len(t, p.List(), health.MaxProblems-1)
	require.True(t, p.SetRecord(more, errFirst))
}

func TestEventsThatWereLostAreCounted(t *testing.T) {
	var e health.Events
	lost, err := e.State()
	require.Zero(t, lost)
	require.NoError(t, err)
	e.Lost(errFirst)
	e.Lost(errSecond)
	lost, err = e.State()
	require.Equal(t, uint64(2), lost)
	require.Equal(t, errSecond, err, "the last")
}
