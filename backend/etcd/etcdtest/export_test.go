package etcdtest

// StartAt is Start with one member told to listen for clients at an address.
func StartAt(members int, opts Options, member int, at string) (*Cluster, error) {
	return start(members, opts, func(c *Cluster) { c.members[member].cfg.Client = at })
}
