package fob

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/fobkit/fob/internal/family"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/keytext"
)

// Config is the settings of a Manager. The zero Config works: each zero field
// means its documented default. New copies it; nothing can change it later.
type Config struct {
	// Prefix starts the text of every key issued: lower-case letters and digits
	// in parts joined by '_', up to 20 characters; by custom a product and an
	// environment, as in "acme_live". Default "fob".
	Prefix string
	// Prefixes are further prefixes that may be issued (KeySpec.Prefix) and are accepted.
	Prefixes []string
	// RetiredPrefixes are prefixes that are still accepted but no longer issued.
	RetiredPrefixes []string
	// OtherPrefixes are the prefixes of other environments: a key that has one of them is
	// refused as one of another environment ([Reason] says "environment").
	OtherPrefixes []string

	// Peppers are secrets held outside the store. Digests are made under them
	// (HMAC-SHA-256), so a copy of the store alone is not enough to check a guess of a
	// secret that was issued here, or imported with a Locator (see ImportedKey). They do
	// not stop somebody who can write to the store: a record under no pepper is accepted,
	// and no digest covers what a key grants. New digests are made under the first pepper;
	// a key whose digest is under another one, or under none, is rehashed when it is next
	// verified. No Peppers means plain SHA-256, which is enough for the secrets made here
	// (190 random bits); imported secrets may be weaker.
	//
	// If several processes use a store, each must know a pepper before any of them uses
	// it: add the new pepper second everywhere, deploy, then move it to the front.
	Peppers []Pepper

	// Imported says how keys of other systems are recognised ([Manager.ImportKey]); nil
	// refuses them.
	Imported *ImportedKeys

	// Roles are names that specs may use for sets of scopes ([KeySpec.Roles]). A role is
	// resolved at each verification, so what is changed here changes for everybody who has
	// the role, once every process has it. A role that is no longer here grants nothing.
	Roles Roles

	// Tokens turns on access tokens; nil means keys only.
	Tokens *TokenConfig

	// CacheEntries bounds the verification cache: the number of keys in it, and the number
	// of tokens. Default 100,000.
	CacheEntries int
	// CacheBytes bounds the memory of the keys and that of the tokens in the cache, each,
	// in bytes. Default 1 KiB per entry of CacheEntries.
	CacheBytes int64
	// MaxStaleness bounds how long a change made by another process can go unseen here,
	// even if the store's feed is slow or broken: a cached answer that was last known to
	// be current longer ago than this is read again. A change made through this Manager is
	// seen at once. While nothing changes, the feed is asked twice a second to prove that
	// it is complete, and up to 20 times if MaxStaleness is less than 2 s. Default 2 s, 50
	// ms to 24 h. If the sum of MaxStaleness and StaleIfError is more than 2 s, it is
	// written into the store before it is used, so that the receipts of other processes
	// are right (see [Manager.FleetStaleness]).
	MaxStaleness time.Duration
	// StaleIfError is how much longer than MaxStaleness a cached answer may be used while
	// the store cannot be read. The price of this availability is that for so long a
	// credential may be accepted that another process has revoked. A credential is refused
	// all the same if it was revoked here, or if the feed or any read of this Manager has
	// shown that it is revoked, and none is accepted past its expiry. Credential.AsOf
	// tells the age of an answer. Default 0: a credential that cannot be checked is an
	// error.
	StaleIfError time.Duration

	// UsageInterval is how often usage is written to the store: there is at most one write
	// per key and interval, and a crash loses at most one interval of usage. Default 1
	// minute, 10 ms to 10 years. An interval above the default is written into the store
	// before it is used, so that no process takes a key for quiet (see Rotation.QuietTime)
	// that was used in this one.
	UsageInterval time.Duration
	// SweepInterval is how often upkeep runs: purging old records and retiring rotated
	// keys that went quiet. Default 1 minute, at least 10 ms. A negative interval turns it
	// off, for example in all but one of the processes on a store.
	SweepInterval time.Duration
	// Retention is how long the record of a revoked or expired key is kept. The record of
	// an expired key is kept for at least a day, because the clock of another process may
	// be behind. Default 90 days, up to 100 years.
	Retention time.Duration
	// IdempotencyWindow is how long an IssueKey with an IdempotencyKey can be repeated.
	// Default 24 hours, up to 100 years.
	IdempotencyWindow time.Duration

	// Observer receives events; nil means none. A nil pointer or a nil function in it is
	// ErrInvalid. [LogEvents] makes an Observer for slog.
	Observer Observer
	// Clock tells the time. Default time.Now; a test sets its own.
	Clock func() time.Time
}

// Format writes c without the keys in it, in one form for every verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// String returns c without the keys in it.
func (c Config) String() string {
	type config Config // without its methods
	return fmt.Sprintf("%+v", config(c))
}

// MarshalText returns c without the keys in it; JSON, XML and YAML use it too.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalBinary fails, because it would write the keys in c.
func (c Config) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// LogValue returns c without the keys in it.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Pepper is a secret key for digests, with the name by which records refer to it. If a
// pepper is lost, the keys under it cannot be checked any more. Keep it where other
// service secrets are kept, not beside the store. Its printed form, and its form as text,
// JSON, XML, YAML and in slog, leave out its Key. But fmt calls no methods for the
// unexported fields of a struct, nor for what is printed with %p or %w by mistake, and
// the diffs of test libraries never call any: keep a Pepper, or a Config with one, out of
// those.
type Pepper struct {
	// ID is 1 to 32 letters, digits, '-' or '_'; it is stored and never reused.
	ID string
	// Key is at least 32 bytes from a cryptographic source.
	Key []byte
}

// Format writes only the pepper's ID, for every verb.
func (p Pepper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.shown()) }

// String returns only the pepper's ID.
func (p Pepper) String() string { return p.shown() }

// MarshalBinary fails, because it would write the key.
func (p Pepper) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// MarshalText returns only the pepper's ID; JSON, XML and YAML use it too.
func (p Pepper) MarshalText() ([]byte, error) { return []byte(p.shown()), nil }

// LogValue returns only the pepper's ID.
func (p Pepper) LogValue() slog.Value { return slog.StringValue(p.shown()) }

func (p Pepper) shown() string {
	if !validPepperID(p.ID) {
		return "pepper " + redacted // the field may hold the key by mistake
	}
	return fmt.Sprintf("pepper %q", p.ID)
}

// The limits and defaults of Config.
const (
	defaultPrefix      = "fob"
	defaultEntries     = 100_000
	defaultStaleness   = fleet.DefaultStaleness
	minStaleness       = 50 * time.Millisecond
	maxStaleness       = 24 * time.Hour
	maxStaleIfError    = fleet.MaxStaleness - maxStaleness
	defaultUsage       = fleet.DefaultUsageInterval
	minUsage           = 10 * time.Millisecond
	maxInterval        = 10 * 365 * 24 * time.Hour
	maxRetention       = 100 * 365 * 24 * time.Hour // so that no sum of it and other times overflows
	defaultSweep       = time.Minute
	minSweep           = 10 * time.Millisecond
	defaultRetention   = 90 * 24 * time.Hour
	defaultIdempotency = 24 * time.Hour
	minPepper          = 32
	maxPepperID        = 32
	defaultImportedMax = 512
	maxImportedMax     = 4096
)

// resolved returns a copy of c that shares no memory with it and has the defaults filled
// in, or one error that names every problem.
func (c Config) resolved() (Config, error) {
	orDefault(&c.Prefix, defaultPrefix)
	orDefault(&c.CacheEntries, defaultEntries)
	orDefault(&c.CacheBytes, int64(max(0, c.CacheEntries))<<10)
	orDefault(&c.MaxStaleness, defaultStaleness)
	orDefault(&c.UsageInterval, defaultUsage)
	orDefault(&c.SweepInterval, defaultSweep)
	orDefault(&c.Retention, defaultRetention)
	orDefault(&c.IdempotencyWindow, defaultIdempotency)
	c.Prefixes = slices.Clone(c.Prefixes)
	c.RetiredPrefixes = slices.Clone(c.RetiredPrefixes)
	c.OtherPrefixes = slices.Clone(c.OtherPrefixes)
	c.Peppers = slices.Clone(c.Peppers)
	for i, p := range c.Peppers {
		c.Peppers[i].Key = slices.Clone(p.Key)
	}
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	seen := map[string]bool{}
	// A refused prefix is not quoted in the error: it may be a secret in the wrong field.
	for _, list := range []struct {
		name     string
		prefixes []string
	}{{"Prefix", []string{c.Prefix}}, {"Prefixes", c.Prefixes}, {"RetiredPrefixes", c.RetiredPrefixes}, {"OtherPrefixes", c.OtherPrefixes}} {
		for i, prefix := range list.prefixes {
			switch err := keytext.CheckPrefix(prefix); {
			case err != nil:
				problem("%s, number %d: %w", list.name, i, err)
			case seen[prefix]:
				problem("prefix %q is named twice", prefix)
			case prefix == family.SecretPrefix:
				problem("prefix %q is that of refresh secrets", prefix)
			}
			seen[prefix] = true
		}
	}
	ids := map[string]bool{}
	for i, p := range c.Peppers {
		if !validPepperID(p.ID) || ids[p.ID] {
			problem("Peppers[%d]: its ID is not 1 to %d letters, digits, '-' or '_', or is named twice", i, maxPepperID)
		}
		ids[p.ID] = true
		if len(p.Key) < minPepper {
			problem("Peppers[%d]: %d bytes, at least %d", i, len(p.Key), minPepper)
		}
	}
	if c.Imported != nil {
		f := *c.Imported
		orDefault(&f.MaxLength, defaultImportedMax)
		orDefault(&f.SlowChecks, max(1, runtime.GOMAXPROCS(0)/2))
		if f.MaxLength < 8 || f.MaxLength > maxImportedMax {
			problem("Imported.MaxLength %d, want 8 to %d", f.MaxLength, maxImportedMax)
		}
		if f.SlowChecks < 1 {
			problem("Imported.SlowChecks %d, at least 1", f.SlowChecks)
		}
		c.Imported = &f
	}
	roles, err := c.Roles.resolved()
	if c.Roles = roles; err != nil {
		problems = append(problems, err)
	}
	if c.Tokens != nil {
		resolved, more := c.Tokens.resolved(c.Prefix)
		c.Tokens = resolved
		problems = append(problems, more...)
	}
	if c.Observer != nil && guard.Missing(c.Observer) {
		problem("Observer is a nil pointer or function")
	}
	if c.CacheEntries < 1 {
		problem("CacheEntries %d, at least 1", c.CacheEntries)
	}
	if c.MaxStaleness < minStaleness || c.MaxStaleness > maxStaleness {
		problem("MaxStaleness %v, want %v to %v", c.MaxStaleness, minStaleness, maxStaleness)
	}
	if c.CacheBytes < 0 {
		problem("CacheBytes %d is negative", c.CacheBytes)
	}
	if c.StaleIfError < 0 || c.StaleIfError > maxStaleIfError {
		problem("StaleIfError %v, want 0 to %v", c.StaleIfError, maxStaleIfError)
	}
	if c.UsageInterval < minUsage || c.UsageInterval > maxInterval {
		problem("UsageInterval %v, want %v to %v", c.UsageInterval, minUsage, maxInterval)
	}
	if c.SweepInterval > 0 && c.SweepInterval < minSweep {
		problem("SweepInterval %v, at least %v, or negative for none", c.SweepInterval, minSweep)
	}
	if c.Retention < 0 || c.Retention > maxRetention {
		problem("Retention %v, want 0 to %v", c.Retention, maxRetention)
	}
	if c.IdempotencyWindow < 0 || c.IdempotencyWindow > maxRetention {
		problem("IdempotencyWindow %v, want 0 to %v", c.IdempotencyWindow, maxRetention)
	}
	return c, errors.Join(problems...)
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func validPepperID(id string) bool {
	if id == "" || len(id) > maxPepperID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
