package news_test

import (
	"testing"

	"github.com/fobkit/fob/backend/internal/news"
	"github.com/stretchr/testify/require"
)

func rung(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestRingWakesAllWhoWaitAndNobodyLater(t *testing.T) {
	b := news.NewBell()
	b.Ring() // nobody waits
	first, second := b.Next(), b.Next()
	require.False(t, rung(first), "a Ring before Next is not for those who come later")
	b.Ring()
	require.True(t, rung(first))
	require.True(t, rung(second))
	third := b.Next()
	require.False(t, rung(third), "each Ring needs a Next of its own")
	b.Ring()
	require.True(t, rung(third))
}
