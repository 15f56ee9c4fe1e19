// Package guides holds the programs of the guides in this folder as tests, so that what a
// guide shows is compiled and run.
package guides
