package marks

import "github.com/fobkit/fob/internal/record"

// Table is the table of marks.
type Table = table

func (t *table) Get(id record.ID) (value uint64, ok bool) { return t.get(id) }
func (t *table) Put(id record.ID, value uint64)           { t.put(id, value) }
func (t *table) Drop(id record.ID)                        { t.drop(id) }
func (t *table) Len() int                                 { return t.n }

func (t *table) DropIf(from, most int, over func(kind byte, value uint64) bool) (next int) {
	return t.dropIf(from, most, over)
}

// SettleEvery is the pause between two reads of what the feed has named.
const SettleEvery = settleEvery
