package writequeue

// Ahead is what a store does with the Ops that RunAhead hands it. T is a transaction in
// the making. All but Commit run in the writer's goroutine.
type Ahead[T any] struct {
	// Open begins a transaction that sees what behind has changed, although that is still
	// to be committed; nothing is behind the first one, and then behind is the zero T. It
	// is called when behind is complete and before its Commit.
	Open func(behind T) T
	// Apply evaluates Ops in a transaction; it is called once or several times for each.
	// What it does not take may be given up by its caller until Commit.
	Apply func(T, []*Op[T])
	// Commit commits a transaction and sets the Err of all of its Ops. It runs in a
	// goroutine of its own, while Apply evaluates the next transaction. If it fails, the
	// next one rests on changes that were not made: its Commit must commit nothing then,
	// and answer none of its Ops by what was found, refusals included.
	Commit func(T, []*Op[T])
	// Drop ends a transaction that nothing was applied in.
	Drop func(T)
}

// RunAhead is Run for an engine in which a transaction can be evaluated while the one
// before is committed. Only one is committed at a time, and no Op is answered before all
// that it rests on was committed. An Op that is Alone is evaluated when nothing is being
// committed.
func (q *Queue[T]) RunAhead(stop <-chan struct{}, a Ahead[T]) {
	var held *Op[T]
	for {
		first := held
		if first == nil {
			if first = q.next(stop); first == nil {
				return
			}
		}
		var none T
		b := a.Open(none)
		var s share
		var ops []*Op[T]
		ops, held = q.fold(first, &s)
		a.Apply(b, ops)
		var before []*Op[T] // committed, and not told yet
		for len(ops) > 0 {
			next := a.Open(b)
			committed := make(chan struct{})
			go func(b T, ops []*Op[T]) {
				defer close(committed)
				a.Commit(b, ops)
			}(b, ops)
			tell(before) // now that the disk has something to do
			before = ops
			var ahead []*Op[T]
			ahead, held = q.evaluate(a, next, held, committed)
			b, ops = next, ahead
		}
		tell(before)
		a.Drop(b)
	}
}

// tell hands the callers of Ops their answers.
func tell[T any](ops []*Op[T]) {
	for _, o := range ops {
		close(o.done)
	}
}

// evaluate evaluates next, if there is one, and what comes until the transaction before is
// committed. It returns what it has evaluated, and an Op that does not go with that.
func (q *Queue[T]) evaluate(a Ahead[T], b T, next *Op[T], committed <-chan struct{}) (ops []*Op[T], held *Op[T]) {
	var s share
	for {
		switch {
		case next == nil:
		case next.Alone:
			held = next
		default:
			var taken []*Op[T]
			if taken, held = q.fold(next, &s); len(taken) > 0 {
				a.Apply(b, taken)
				ops = append(ops, taken...)
			}
		}
		more := q.ops
		if held != nil || s.n >= q.most {
			more = nil // no place is left in b
		}
		select {
		case next = <-more:
		case <-committed:
			return ops, held
		}
	}
}
