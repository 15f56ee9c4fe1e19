package fob

import "context"

// turn is a lock that is waited for no longer than a context lasts: what is held
// under it may be a call of a store that hangs.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeFree takes the turn if nobody has it.
func (t turn) takeFree() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) free() { <-t }
