package legacyhash

import "testing"

const QueueFactor = queueFactor

// Hold takes every turn until release is called.
func (l *Limiter) Hold(t *testing.T) (release func()) {
	if !l.sem.TryAcquire(1) {
		t.Fatal("a check is under way")
	}
	return func() { l.sem.Release(1) }
}
