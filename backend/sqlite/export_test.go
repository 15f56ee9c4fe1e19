package sqlite

// FailCommits makes commits answer err after they were made; nil ends it.
func (s *Store) FailCommits(err error) { s.hooks.commitError = func() error { return err } }

// OnBatch is called with the number of operations in each batch, before it is
// made.
func (s *Store) OnBatch(f func(int)) { s.hooks.batched = f }

// OnCommit is called before each commit.
func (s *Store) OnCommit(f func()) { s.hooks.committing = f }

// Keep is how many changes the feed remembers from now on.
func (s *Store) Keep(n uint64) { s.hooks.keep = n }
