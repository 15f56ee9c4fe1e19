// Package etcd is a store in an etcd cluster, for any number of processes on any
// number of machines.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tlsConfig, Username: user, Password: password})
//	store, err := etcd.New(client, etcd.Options{})
//	defer client.Close()
//	defer store.Close()
//
// The client is the caller's, with its endpoints, TLS, user and keep-alive; Close
// leaves it open. Each write has etcd's own condition on the key's revision, which
// is the record's version; each read is linearizable.
//
// # What a returned write survives
//
// The loss of any minority of the members, at any moment, and power loss of all of
// them: a write returns when a majority has synced it to disk. No failover undoes
// it. Restoring a snapshot does: re-apply later revocations before the store is
// used, and restore with --bump-revision and --mark-compacted, so that versions
// rise and every feed begins anew. A restore that is told neither is noticed when
// the revision or the election term is lower than what a feed has seen.
//
// # Failover
//
// A call is sent up to three times within Options.Timeout, 5 s by default, to one
// member after the other, as long as that is safe: so an election, a member that
// was killed and one that is cut off cost a wait of one or two seconds and no
// error. An update carries a random number by which a second attempt knows the
// first. What is still unanswered then is backend.ErrIndeterminate for a write,
// unless it surely was not made: without a connection to any member, without a
// leader, and with etcd's quota used up it is backend.ErrUnavailable.
//
// # The feed
//
// Watch follows the records from a revision. A token outlives restarts of the
// process and of etcd; where etcd has compacted what follows it, and where the
// prefix was emptied or the cluster is another one, there is a Reset. The feed
// goes on through failures that end by themselves, and ends only where no further try
// can succeed: the client was closed, or the right to read was taken away.
//
// The proof of freshness is a linearizable read: the revision that it returns is one
// that all writes before it are part of, and when the watch has come that far, all of
// them have been delivered. The watch alone proves nothing, since a member that is cut
// off goes on answering it, from its past. A proof is asked for as often as the caller
// wants one (backend.WithProofEvery; fob.Manager: twice a second), at least five times
// a second while changes come, and 20 times a second where the caller says nothing. It
// costs 0.15 ms of processor time, client and server together.
//
// What a change is, etcd sends whole, body included, to every feed.
//
// # What to run
//
// etcd 3.5.18, 3.6 or later: servers before that could lose the deletion of a key
// near a compaction (etcd issues 18089 and 19179), and say that a watch is further
// than it is (issue 15220). Leave --max-txn-ops at its default of 128, or higher:
// an update that replaces all 64 labels of a record is 133 operations, in two nested
// transactions.
//
// Set --auto-compaction-retention; nothing here compacts. How much history is kept
// is how long a process may be away and still resume its feed. Defragmentation and
// backups are the operator's too.
//
// With authentication, the user needs to read and write the range from
// Options.Prefix to the end of that prefix. To read it is enough for a process that
// only verifies:
//
//	etcdctl role grant-permission fob --prefix=true readwrite fob/
//
// # Limits
//
// etcd keeps everything in one file, with a quota of 2 GiB by default and 8 GiB at
// most. A record with a body of 900 bytes, in every list, takes 2.1 kB of it: a
// million fit in the default, if history is compacted. Each write costs a sync on a majority; many concurrent ones share
// it. Counting every use of a credential in etcd is not for free either: batch it,
// as fob.Manager does; a batch of up to 10,000 IDs is one transaction.
//
// Lists take two round trips, so that they show one revision: the keys of the list are
// read first, and then its records, in transactions of 100 that are on their way at the
// same time. The newest first takes two more where the list is longer than a few pages: etcd
// reads a range from its start only, so the end is found by counting. GetMany reads in such transactions too, and so does Scan, which goes on at a
// later revision where the one that it reads is compacted.
//
// # Layout
//
// One key for each record and one, empty, for each list that it is in; see
// layout.go, and docs/decisions/0011-etcd-layout.md for the reasons. A marker names
// the format, and each write has it among its conditions: a program that does not
// know a later format cannot write into it.
//
// The layout is number 2 since records have labels. A store of layout 1 is read as it is,
// and brought up by the first write of a process that knows layout 2; nothing is written again
// but the marker, and feeds go on. From then on a process that knows layout 1 alone, and still
// runs beside, cannot write, its feeds end, and it fails with an error where it reads what
// was written since; the records that were not, it still reads. End those processes then:
// a change of layout is no time for a slow rolling deploy. A later layout is refused, by
// an error that names both.
package etcd
