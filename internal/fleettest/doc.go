// Package fleettest tests fob as a fleet runs it: several operating system processes on
// one store, on every store that processes can share, with connections that are cut,
// slowed down and left half open, and with servers and processes that are killed.
//
// It is tests only, in a module of its own so that none of its servers reaches a user.
// Each process is this test binary started again; see child_test.go. Where there are
// hundreds of processes, each is a Manager with a store of its own; see crowd_test.go.
package fleettest
