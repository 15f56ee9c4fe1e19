// Package fob issues, verifies, rotates, limits and revokes API credentials
// inside a Go service.
//
// # The model
//
// A Credential proves who is calling. A Key is one kind of it: a static API key,
// a random string that identifies an application. It is long-lived, shown once
// when it is issued, and stored only as a digest. It has an ID, which is public
// and safe to log, and a secret, which is neither; its text holds both:
//
//	acme_live_1 0ZqKJ3vT9xWm4cRb …32 random characters… 4fGh2K
//	prefix    │ id               secret                 checksum
//	          version
//
// (printed here with spaces; there are none). The prefix says at a glance, and
// to a secret scanner, whose key it is. The checksum catches typing errors before
// anything is hashed or read.
//
// A Token is the other kind: a PASETO access token. It is short-lived, carries what
// it grants (Scopes, and Grants on single resources) under a seal that needs no
// store to check, can be refreshed if it was asked for, and is ended by its own
// ID, with its family, with the key it was exchanged for, or with its subject.
// Config.Tokens turns tokens on.
//
// A credential belongs to a Subject, which is an application or a user, and
// grants Scopes. It ends by expiry, by Revoke (for good), by Disable (until
// Enable), by rotation, or with all of its subject by RevokeSubject.
//
// # The types
//
// Manager is the facade: it does all of the above over a store. A store is a
// backend.Store: package backend/memory for tests, backend/badger for one
// process with its own directory, and, in modules of their own, backend/sqlite,
// backend/postgres and backend/etcd for several processes. Verifier is the one-method interface that
// middleware takes (see package httpauth); it cannot issue or revoke. TokenVerifier
// is one that needs public keys alone, and knows of no revocation. Secret
// holds what must not be printed, and prints as a redaction.
//
// # A first program
//
//	store := memory.New()
//	m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
//	secret, key, err := m.IssueKey(ctx, fob.KeySpec{
//		Subject: "app-42",
//		Scopes:  fob.Scopes{"orders:read"},
//	})
//	fmt.Println(secret.Reveal())             // give it to its user, once
//	cred, err := m.Verify(ctx, presented)    // on every request
//	cred.Allows("orders:read")
//	_, err = m.Revoke(ctx, key.ID(), "left the company")
//
// # Concurrency
//
// All methods of a Manager are safe for concurrent use; credentials are
// immutable. Verify answers from a cache: a hit costs one SHA-256 block and one
// lookup, allocates nothing and takes no lock. In one process a change is
// linearizable: once Revoke, Disable, RevokeSubject, UpdateKey or the end of a
// rotation has returned, no Verify that starts later uses the old state. A
// change made by another process is seen when the store's feed tells of it, and
// within Config.MaxStaleness whatever becomes of the feed. Credential.AsOf says how
// current an answer is, and Manager.Fresh is a Verifier that reads the store in each
// call. Manager.RevokeEverywhere returns when no process can accept any more, and
// Manager.Health tells how a process stands with the feed.
//
// # What a failure means
//
// Verify has two classes of error. One that is ErrRejected says that the
// credential is bad: answer 401, and tell the client no more. Any other says that
// it could not be checked (the store failed, a record is corrupt): answer 503. A
// check that could not be made is never an acceptance. ErrScope is a third thing:
// a good credential that lacks a scope, 403.
//
// # Compatibility
//
// Before version 1.0 the API may change between minor versions; CHANGELOG.md
// says how. The text of keys and the records in a store are read by every later
// version. Credential is sealed and may gain methods; Verifier and
// backend.Store will not.
package fob
