// Package etcdtest runs real etcd clusters for tests, on loopback and in
// temporary directories: in this process, or each member in a process of its own
// that can be killed. Members can be stopped, restarted on their data, and cut off
// from each other. What stands between them and their clients is package
// internal/link.
//
//	func TestMain(m *testing.M) {
//		etcdtest.Main() // for Options.Processes
//		os.Exit(m.Run())
//	}
//
//	func TestFailover(t *testing.T) {
//		c, err := etcdtest.Start(3, etcdtest.Options{Processes: true})
//		...
//		defer c.Close()
//		client, err := c.Client() // of all members
//		...
//		c.Kill(c.Leader())
//	}
//
// It is a module of its own, so that the server's dependencies reach nobody who
// only uses package etcd.
package etcdtest
