// Package postgres is a store in a PostgreSQL database, for applications of many
// processes that have one anyway. It needs PostgreSQL 13 or later.
//
//	pool, err := pgxpool.New(ctx, url) // yours: you open and close it
//	err = postgres.Migrate(ctx, pool, postgres.Options{})   // when deploying, as the owner
//	store, err := postgres.New(ctx, pool, postgres.Options{})
//
// A Store borrows the pool; close the store first. Every method is one statement
// in a transaction of its own, and one round trip; only Purge and Maintain send as
// many as they need. Scan reads all records of a kind, about a million a second, and holds
// a connection and a snapshot of the server until it ends. New records that come in a
// burst share statements, which take at most four connections and half of the pool, unless
// they hang; hooks and tracers of the pool see the values of one caller's context then, so
// a hook that chooses a tenant or a role by them does not go with a Store.
//
// # Durability
//
// A write that returned nil is as durable as a commit of this server: it survives
// kill -9 and power loss with synchronous_commit and fsync on, which is the
// default and which New warns about if it is not so. So is a revocation.
//
// # Replicas and failover
//
// A Store reads and writes on the primary alone. New refuses a standby, and so
// does every later statement that reads, should the pool come to one: a replica
// answers from the past, in which a revoked credential is still good. Give
// target_session_attrs=primary in a connection string of several hosts.
//
// The durability of Revoke equals the cluster's. With asynchronous standbys, one
// that is promoted may miss the last commits, and a revocation that had returned
// is undone. For one that survives a failover:
//
//	synchronous_commit = on                            -- remote_apply is not needed
//	synchronous_standby_names = 'ANY 1 (a, b)'         -- a quorum, so that one may fail
//
// and ready the pool with Configure, so that a commit whose wait for a standby was
// cancelled is not taken for acknowledged. After a failover, and after a restore
// from a base backup, the feed tells every process to forget what it knows: the
// cluster's timeline has moved. A disk snapshot that is put back has no timeline
// of its own; after it run
//
//	UPDATE fob.meta SET instance = gen_random_uuid();
//
// and after any restore apply the revocations again that came after the backup.
// Logical replication copies no sequence: before the first write to a copy that it
// has made, let versions go on rising by
//
//	SELECT setval('fob.version', greatest((SELECT max(version) FROM fob.record), (SELECT max(version) FROM fob.change)));
//
// # Migrations
//
// The tables are in one schema, "fob" or any other that Options names. Migrate
// makes them and brings them up to date: one transaction, under a lock, nothing to
// do the second time. Nothing migrates by itself; New fails with a *SchemaError
// that says what to do. Script returns the same as text for a migration tool.
//
// # Roles
//
// Three roles are enough, and Grants returns the SQL for the last two:
//
//   - The owner runs Migrate. It needs CREATE on the schema, and on the database
//     if the schema is not there.
//   - The application reads and writes rows (ReadWrite): SELECT, INSERT, UPDATE
//     and DELETE on record and usage, SELECT, INSERT and DELETE on change, SELECT
//     on migration and on meta with UPDATE of meta's floor, and USAGE of the schema
//     and of the sequence version. It cannot change a table, or what is in the feed.
//   - A process that only verifies reads (ReadOnly): SELECT on the five tables.
//
// LISTEN and NOTIFY need no grant. Whoever may connect to the database can hear that
// something changes, and can send a NOTIFY, which makes a Watch look. What has changed is
// sealed. Only somebody who can read the table meta can open that seal, or make one: then
// every process reads the named record again. Nobody can hide a change by a NOTIFY.
//
// # The feed
//
// Each write adds a row to the table change in its own transaction. A Watch asks
// for new rows as often as its consumer needs a proof that none was missed (see
// backend.WithProofEvery; a Manager asks twice a second), every 200 milliseconds while
// changes come, and every Options.PollInterval while it cannot listen. Its place in the
// feed is no row number: numbers are given out in one order and committed in another, and
// who follows them misses rows. It is the snapshot of the last look, which says exactly
// which transactions were still running; those, and the ones begun since, are what the
// next look is for. A transaction that stays open for hours holds nothing back, in this
// database or another one of the server. A token keeps the snapshot's oldest transaction.
// After a crash the server gives out again the numbers of transactions whose end had not
// reached the disk, so a Watch moves on only to a snapshot whose part of the log has.
//
// NOTIFY is sent after the commit, once for all writes of some milliseconds: in
// the transaction it would make all commits of the database take turns. It names what has
// changed, sealed under a key that all processes on the schema have, and a Watch
// delivers that at once, without a question to the server, however many processes there
// are. It is a hint, and the look is the
// proof: what the look finds is delivered also if it was announced before, so a change may
// come twice. To hear it, each Watch takes one connection out of the pool for good, beyond
// the pool's limit, and looks on the same one: a connection that has silently died does not
// answer, and after a second the Watch goes on with others.
//
// Changes older than Options.Retention are removed by Purge and Maintain; a
// Watch that resumes from further back gets a Reset, which tells it to forget what it
// knows: it never goes on as if nothing had been missed.
//
// # Poolers
//
// Behind a pooler in transaction mode (PgBouncer and its kin) everything works
// but the hearing of NOTIFY; a Watch notices, logs it once, and polls: a
// revocation then arrives within Options.PollInterval. No statement relies on the
// session. The pool must not either: unless the pooler knows prepared statements,
// set default_query_exec_mode=exec (or cache_describe, or simple_protocol). exec and
// simple_protocol want bytea_output=hex, the server's default, and simple_protocol
// client_encoding=UTF8 where the database is in another encoding.
//
// # Time limits
//
// A call ends with its context; one without a deadline is given
// Options.StatementTimeout. When a limit strikes while a write is under way, it
// answers backend.ErrIndeterminate, the connection is closed and the server is asked
// to cancel; where new records share a statement, once the last of their callers has
// gone. A statement_timeout on the role bounds what the server
// does beyond that, and an error by it is sure: backend.ErrUnavailable. A Scan may take
// longer: Options.StatementTimeout bounds each wait for the server to go on.
//
// # Other notes
//
// Inserts and deletes of one ID take turns by a transaction's advisory lock, whose
// number is a hash of the ID. An application that uses advisory locks with 64-bit
// numbers of its own meets one by chance alone, and then waits a moment.
//
// The table change grows by one row for each write within Options.Retention, and
// relies on autovacuum as every table does. A transaction that stays open for
// long, anywhere on the server, keeps rows from being removed, here as elsewhere.
package postgres
