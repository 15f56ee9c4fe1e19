package backendtest

import (
	"time"

	"github.com/fobkit/fob/backend"
)

// checkUrgent: what ends something, and what makes room, goes on when space runs out.
func checkUrgent(p *probe) {
	urgent := backend.Urgent(p.ctx)
	revoked, deleted, due := p.create(sample(1)), p.create(sample(2)), sample(3)
	due.PurgeAt = 1
	due = p.create(due)
	scarce := p.opts.Scarce != nil
	if scarce {
		p.opts.Scarce(p.t, p.store)
		_, err := p.store.Put(p.ctx, sample(4), backend.IfAbsent())
		p.answers(err, backend.ErrUnavailable, "a new record where space runs out")
		_, err = p.store.Put(p.ctx, revoked, backend.IfVersion(revoked.Version))
		p.answers(err, backend.ErrUnavailable, "a change that is not urgent, where space runs out")
		p.holds(revoked)
		p.lacks(sample(4).ID)
	} else {
		p.Logf("the store keeps nothing back: Options.Scarce is not set")
	}
	revoked.Body = []byte("revoked")
	v, err := p.store.Put(urgent, revoked, backend.IfVersion(revoked.Version))
	p.answers(err, nil, "an urgent Put over a record")
	revoked.Version = v
	mark := sample(5)
	mark.Version, err = p.store.Put(urgent, mark, backend.IfAbsent())
	p.answers(err, nil, "an urgent Put of a new record")
	p.answers(p.store.Delete(p.ctx, deleted.ID, deleted.Version), nil, "a Delete")
	p.purges(time.UnixMilli(2), 10, 1)
	p.holds(revoked)
	p.holds(mark)
	p.lacks(deleted.ID)
	p.lacks(due.ID)
}
