//go:build race

package sqlite_test

// The race detector makes the engine, which is translated C, ten times slower.
const slow = true
