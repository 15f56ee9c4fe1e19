package keystate

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
)

// Grants and metadata are stored as texts, each with its length before it, and lists with
// the number of their elements.

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, text := range list {
		b = appendText(b, text)
	}
	return b
}

func encodeGrants(grants []rights.Grant) string {
	var b []byte
	for i := range grants {
		b = appendText(b, grants[i].Type)
		b = appendList(b, grants[i].Actions)
		b = appendList(b, grants[i].Identifiers)
	}
	return string(b)
}

// encodeMeta writes the entries in the order of their names, so that equal metadata is
// equal text.
func encodeMeta(meta map[string]string) string {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		b = appendText(appendText(b, name), meta[name])
	}
	return string(b)
}

// Beyond returns account, roles, grants, metadata and parent of the key as one text, by
// which two keys can be compared; "" if it has none of them.
func (s *State) Beyond() string {
	_, account, _ := s.Subject()
	if account == "" && len(s.Roles)+len(s.Grants)+len(s.Meta) == 0 && s.Parent == (record.ID{}) {
		return ""
	}
	b := appendList(appendText(nil, account), s.Roles)
	b = appendText(b, encodeGrants(s.Grants))
	b = appendText(b, encodeMeta(s.Meta))
	return string(append(b, s.Parent[:]...))
}

// texts reads what appendText and appendList wrote. bad is set by anything else.
type texts struct {
	rest string
	bad  bool
}

func (t *texts) number() int {
	var n uint64
	for i := 0; i < len(t.rest) && i < 3; i++ {
		c := t.rest[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			t.bad = t.bad || i > 0 && c == 0 // not the shortest form
			t.rest = t.rest[i+1:]
			return int(n)
		}
	}
	t.bad, t.rest = true, ""
	return 0
}

func (t *texts) text() string {
	n := t.number()
	if n > len(t.rest) {
		t.bad, t.rest = true, ""
		return ""
	}
	text := t.rest[:n]
	t.rest = t.rest[n:]
	return text
}

func (t *texts) list() []string {
	n := t.number()
	if n == 0 || n > len(t.rest) { // each text takes a byte at least
		t.bad, t.rest = true, ""
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, t.text())
	}
	return list
}

// decodeGrants reads what encodeGrants wrote for at least one grant. The texts are parts of
// text.
func decodeGrants(text string) ([]rights.Grant, bool) {
	t := texts{rest: text}
	grants := make([]rights.Grant, 0, 4)
	for t.rest != "" && !t.bad {
		grants = append(grants, rights.Grant{Type: t.text(), Actions: t.list(), Identifiers: t.list()})
	}
	return grants, !t.bad
}

// decodeMeta reads what encodeMeta wrote for at least one entry.
func decodeMeta(text string) (map[string]string, bool) {
	t := texts{rest: text}
	meta, last := make(map[string]string), ""
	for t.rest != "" && !t.bad {
		name := t.text()
		if len(meta) > 0 && strings.Compare(last, name) >= 0 {
			return nil, false // not in order, or twice
		}
		last = name
		meta[name] = t.text()
	}
	return meta, !t.bad
}
