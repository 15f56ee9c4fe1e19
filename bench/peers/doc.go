// Package peers runs the same work through fob and through the libraries that
// one would take instead, in one run on one machine, so that a figure is a ratio:
//
//	cd bench/peers && go test -run '^$' -bench . -benchmem
//
// It is a module of its own: what it requires reaches no user of fob.
//
// # Names
//
// A benchmark is called Benchmark<What>/<subject>/<library>. Lines that differ
// in the library alone did the same work and may be divided by one another. A
// library that has several algorithms is followed by one: fob_v4.public,
// golang-jwt_EdDSA. The name floor is not a library: it is that work without
// what the others add to it.
//
//	CachedKey    uniform, one_hot_key, parallel_uniform    fob, kubernetes
//	UncachedKey  uniform                                   fob, kubernetes, kubernetes_no_ttl, floor
//	Token        signed, shared_key, opaque,               see below
//	             cached_signed, cached_shared_key
//	Cache        uniform, zipf, hot, and each _parallel    fob, golang-lru, otter, sync.Map
//	CacheChurn   zipf, zipf_parallel                       fob, golang-lru, otter
//
// CacheChurn has twice as many keys as room for them and reports hits/op; what
// is unbounded is not in it.
//
// # What is the same, and what is not
//
// Each library is asked, for one text, whose it is. The function that is measured
// is the one that TestPeersAgree has seen accept good credentials and refuse bad
// ones, and the benchmark checks the subject of every answer.
//
// A peer is used in the way that is fastest for it and still a check: no audience
// in the context of Kubernetes, one fixed key where fob looks up the one that a
// token names. What fob does beyond that, it does in the figures too: it looks
// for revocations on every verification, and counts the use of keys.
//
// Token, signed: Ed25519, with nothing remembered. Token, shared_key: nothing
// remembered either; a PASETO token of that kind is encrypted, one of HS256 is
// only authenticated, which is less work. Token, opaque: a random text that is
// looked up in memory; for fob that is a key. All but opaque texts carry the same
// claims, and issuer, audience, expiry and not-before are checked. An opaque one
// has no issuer but its store, and that of go-oauth2 no audience either.
// Token, cached_…: 10,000 live tokens, each seen before; the peer is the token
// cache of Kubernetes over go-paseto.
package peers
