// Package labels is the labels of a record as the key-value engines keep them: their form
// within a value, and what an update changes in the lists.
package labels

import (
	"encoding/binary"

	"github.com/fobkit/fob/backend"
)

// Room is how many bytes Append adds.
func Room(labels []string) int {
	n := 1
	for _, label := range labels {
		n += 2 + len(label)
	}
	return n
}

// Append adds labels to b, which [backend.CheckPut] has accepted: their number, and each
// with its length before it.
func Append(b []byte, labels []string) []byte {
	b = append(b, byte(len(labels)))
	for _, label := range labels {
		b = binary.BigEndian.AppendUint16(b, uint16(len(label)))
		b = append(b, label...)
	}
	return b
}

// Cut reads labels from the start of b into memory of their own, nil for none, and returns
// what follows them. It reports false for what Append does not write.
func Cut(b []byte) (labels []string, rest []byte, ok bool) {
	if len(b) == 0 || b[0] > backend.MaxLabels {
		return nil, nil, false
	}
	n, end := int(b[0]), 1
	for range n {
		if len(b) < end+2 {
			return nil, nil, false
		}
		end += 2 + int(binary.BigEndian.Uint16(b[end:]))
		if len(b) < end {
			return nil, nil, false
		}
	}
	if n == 0 {
		return nil, b[end:], true
	}
	all := string(b[:end]) // one allocation for all of them
	labels = make([]string, n)
	for i, at := 0, 1; i < n; i++ {
		from := at + 2
		at = from + int(binary.BigEndian.Uint16(b[from-2:]))
		labels[i] = all[from:at]
	}
	return labels, b[end:], true
}

// Changed is what is in before and not in now, and the other way round. Both are ascending,
// and so are the answers. Labels that stay the same cost no memory.
func Changed(before, now []string) (gone, added []string) {
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0] < now[0]:
			gone, before = append(gone, before[0]), before[1:]
		case len(before) == 0 || now[0] < before[0]:
			added, now = append(added, now[0]), now[1:]
		default:
			before, now = before[1:], now[1:]
		}
	}
	return gone, added
}
