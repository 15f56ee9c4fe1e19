// Package rolling tests rolling deploys: the program of an earlier commit runs beside that
// of this one on one store, and before and after it on a store that only one process opens.
// What one of them issues and revokes has to hold at the other.
//
// The tests make the tree of the earlier commit out of the history of this repository, and
// build the folder program of that tree. A commit that is older than this package has none:
// its program is in testdata, in the words of its API.
//
// The program speaks lines of JSON: it is sent a [Request] a line and answers with a
// [Reply] a line, the first of which says whether it started. The tests of a later commit
// speak to the programs of earlier ones. So flags, requests and replies may be added, but
// those that are here keep their names and meaning. A program answers a request that it
// does not know with [Unknown].
package rolling
