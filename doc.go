// Package fob issues, verifies, rotates, limits and revokes API credentials
// inside a Go service.
//
// # The model
//
// A [Credential] proves who is calling. A [Key] is one kind of credential: a static API
// key, a random string that identifies an application. It is long-lived, shown once when
// it is issued, and stored only as a digest. It has an ID, which is public and safe to
// log, and a secret, which is neither. The text of a key holds both:
//
//	acme_live_1 0ZqKJ3vT9xWm4cRb …32 random characters… 4fGh2K
//	prefix    │ id               secret                 checksum
//	          version
//
// (The text itself has no spaces.) The prefix tells people and secret scanners whose key
// it is. The checksum catches typing errors before anything is hashed or read.
//
// A [Token] is the other kind: a PASETO access token. It is short-lived. It carries what
// it grants ([Scopes], and [Grants] on single resources), signed or encrypted, so that it
// can be checked without reading a store. It can be refreshed if its spec asked for that
// (TokenSpec.Refreshable): then it belongs to a [Session]. Config.Tokens turns tokens on.
//
// A credential belongs to a [Subject]: an application ([App]) or a user ([User]), perhaps of
// an [Account], which is that of the API's consumer. It grants [Scopes], and [Grants] on
// single resources; [Roles] stand for scopes that are looked up when it is verified. What a
// token allows is at most what the key allows, now, that it was exchanged for.
//
// A credential ends by expiry and by rotation. Three verbs act on any [Target], which is one
// key, token or session (its [ID]), everything of a [Subject] or of an [Account], or every
// token ([AllTokens]): [Manager.Revoke] is for good, [Manager.Disable] until
// [Manager.Enable]. Each is one write, however many credentials hang below.
//
// # The types
//
// A [Manager] does all of the above with a store. A store is a backend.Store: package
// backend/memory for tests, backend/badger for one process with its own directory, and,
// in modules of their own, backend/sqlite, backend/postgres and backend/etcd for several
// processes. A [Verifier] has the one method that middleware needs (see package
// httpauth); it cannot issue or revoke. A [TokenVerifier] needs nothing but public keys,
// and does not learn of revocations. A [Secret] holds text that must not be printed, and
// prints as a redaction.
//
// # A first program
//
//	store := memory.New()
//	m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
//	secret, key, err := m.IssueKey(ctx, fob.KeySpec{
//		Subject: fob.App("app-42"),
//		Scopes:  fob.Scopes{"orders:read"},
//	})
//	fmt.Println(secret.Reveal())             // give it to its user, once
//	cred, err := m.Verify(ctx, presented)    // on every request
//	cred.Allows("orders:read")
//	_, err = m.Revoke(ctx, key.ID(), "left the company")
//
// # Concurrency
//
// All methods of a [Manager] are safe for concurrent use, and credentials are immutable.
// [Manager.Verify] answers from a cache: a hit costs one SHA-256 block and one lookup,
// allocates nothing and takes no lock. In one process a change is linearizable: once
// [Manager.Revoke], [Manager.Disable], [Manager.UpdateKey] or the end of a rotation has
// returned, no Verify that starts later uses the old state. A change
// made by another process is seen when the feed of the store reports it, and within
// Config.MaxStaleness even if the feed is slow or broken. Credential.AsOf says how current
// an answer is. [Manager.Fresh] returns a Verifier that reads the store in each call.
// [Receipt.Wait] returns when no process can accept any more what was revoked.
// [Manager.Health] reports whether this process follows the feed.
//
// # What a failure means
//
// Verify returns two classes of error. An error that is [ErrRejected] says that the
// credential is bad: answer 401, and tell the client no more; [Reason] has a word for logs
// and metrics. Any other error says that the
// credential could not be checked (the store failed, a record is corrupt): answer 503, and
// do not let the request through. [ErrScope] is separate from both: the credential is good
// but lacks a scope, so answer 403.
//
// # Compatibility
//
// Before version 1.0 the API may change between minor versions; CHANGELOG.md says how.
// Every later version accepts the keys and reads the stored records of all earlier ones.
// [Credential] cannot be implemented outside this package and may gain methods;
// [Verifier] and backend.Store will not.
package fob
