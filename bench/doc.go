// Package bench measures the hot path. Its benchmarks stand in the same run as
// the floor under each (a SHA-256 block, a map lookup, a bare read of the
// store), so that a figure is a ratio within one run, not a time on some machine:
//
//	go test -run '^$' -bench . -benchmem ./bench
//
// Each benchmark checks that it did the work that it names.
package bench
