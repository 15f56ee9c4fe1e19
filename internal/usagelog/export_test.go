package usagelog

// Crowd has as many clashes happen on a cell as it takes to spread its count.
func (c *Cell) Crowd() {
	for range maxClashes {
		c.clash()
	}
}

// Crowded reports whether the count of a cell is spread.
func (c *Cell) Crowded() bool { return c.spread() != nil }

// UsesInWord is how many uses a cell counts in the number that has everything.
const UsesInWord = usesInWord

// MaxClashes is how many clashes it takes to spread the count of a cell.
const MaxClashes = maxClashes

// Clash is one of them.
func (c *Cell) Clash() { c.clash() }

// InWord is how many uses are counted in the number that has everything.
func (c *Cell) InWord() int { return int(c.word & usesInWord) }
