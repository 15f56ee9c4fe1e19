package importedhash

import "testing"

const QueueFactor = queueFactor

// Hold takes a turn until release is called.
func (l *Limiter) Hold(t *testing.T) (release func()) {
	if !l.turns.TryAcquire(1) {
		t.Fatal("all turns are taken")
	}
	return func() { l.turns.Release(1) }
}

// Verify is Check where the hash can be computed.
func (h Hash) Verify(secret string) bool {
	matches, err := h.Check(secret)
	if err != nil {
		panic(err)
	}
	return matches
}
