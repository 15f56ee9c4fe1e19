package sqlite

import "time"

const (
	// awakeFor is how long a Watch goes on looking after it has heard that the log was
	// written to. The commit shows when it was synced, which on a slow disk takes long, and
	// then nothing is heard.
	awakeFor = time.Second
	// firstLook is the time until the first look after that, about what a sync takes. Each
	// further one comes after twice the time, up to Options.PollEvery.
	firstLook = 2 * time.Millisecond
)

// pace is when a Watch looks at the file. A look every poll is all it does where nobody
// tells that the file was written to; else it sleeps, and looks for a proof only.
type pace struct {
	poll, proof time.Duration
	deaf        bool // nobody tells

	awake time.Time // until then a commit may be on its way
	step  time.Duration
	// doubt says that a look has found what nobody told of. If nobody does before awake is
	// over, nobody will.
	doubt bool
}

// heard notes that the log was written to.
func (p *pace) heard(now time.Time) {
	p.awake, p.step, p.doubt = now.Add(awakeFor), firstLook, false
}

// found notes that a look has found what others have committed.
func (p *pace) found(now time.Time) {
	if !p.deaf && now.After(p.awake) {
		p.awake, p.step, p.doubt = now.Add(awakeFor), p.poll, true
	}
}

// next is how long to wait for the next look, if nothing is heard meanwhile and the last
// proof was at proven.
func (p *pace) next(now, proven time.Time) time.Duration {
	awake := now.Before(p.awake)
	p.deaf = p.deaf || p.doubt && !awake
	wait := proven.Add(p.proof).Sub(now)
	switch {
	case p.deaf:
		return min(p.poll, wait)
	case awake:
		step := min(p.step, p.poll)
		p.step = 2 * step
		return min(step, wait)
	}
	return wait
}
