package cache

// BreakPublishOrder makes Invalidate announce a change before it is visible, and
// call between between the two.
func (c *Cache[V]) BreakPublishOrder(between func()) { c.broken.publishFirst = between }

// BreakTickets makes Put take its ticket after the read instead of before.
func (c *Cache[V]) BreakTickets() { c.broken.ignoreTicket = true }
