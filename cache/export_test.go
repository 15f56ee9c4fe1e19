package cache

// BreakPublishOrder makes Invalidate announce a change before it is visible, and
// call a function between the two.
func (c *Cache[V]) BreakPublishOrder(between func()) { c.broken.publishFirst = between }

// BreakTickets makes Put take its ticket after the read instead of before.
func (c *Cache[V]) BreakTickets() { c.broken.ignoreTicket = true }

// SameStripe tells whether a change of one of two refs also ends what depends on
// the other.
func (c *Cache[V]) SameStripe(a, b Ref) bool { return c.stripe(a) == c.stripe(b) }
