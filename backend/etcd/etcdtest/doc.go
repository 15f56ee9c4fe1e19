// Package etcdtest runs real etcd clusters for tests, on loopback and in
// temporary directories: in this process, or each member in a process of its own
// that can be killed. Members can be stopped, restarted on their data, and cut off
// from each other or from their clients.
//
// It is a module of its own, so that the server's dependencies reach nobody who
// only uses package etcd.
package etcdtest
