package imported

import (
	"strconv"
	"strings"
)

// partMark is the prefix of an imported hash that was made over a part of the key only.
const partMark = "part:"

// keptHash returns the hash of a key as its record keeps it. If the hash is of a part of the
// key, what stands before that part is kept with it, and so the hash is of no other text:
// not of one that begins otherwise, even if Locate takes both for the same locator.
func (f Key) keptHash() string {
	if f.HashAfter == "" {
		return f.Hash
	}
	return partMark + strconv.Itoa(len(f.HashAfter)) + ":" + f.HashAfter + f.Hash
}

// hashedPart returns the hash of an imported key and the part of a presented text that must
// have it. fits is false if the text cannot be that of the key. The hash is "", which is
// none, if kept is broken.
func hashedPart(kept, presented string) (hash, part string, fits bool) {
	rest, cut := strings.CutPrefix(kept, partMark)
	if !cut {
		return kept, presented, true
	}
	size, rest, _ := strings.Cut(rest, ":")
	n, _ := strconv.Atoi(size) // 0 if it is no number
	if n < 1 || n > len(rest) {
		return "", "", false
	}
	part, fits = strings.CutPrefix(presented, rest[:n])
	return rest[n:], part, fits && part != ""
}
