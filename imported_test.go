package fob_test

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

const importedText = "ab12cd.s3cr3t-of-another-system"

// located is how the other system's keys are found: "<locator>.<secret>".
func located() *fob.ImportedKeys {
	return &fob.ImportedKeys{
		Locate: func(presented string) (string, bool) {
			locator, _, ok := strings.Cut(presented, ".")
			return locator, ok
		},
		Digest: otherDigest,
	}
}

func otherDigest(presented string) []byte {
	mac := hmac.New(sha256.New, []byte("the other system's own key"))
	mac.Write([]byte(presented))
	return mac.Sum(nil)
}

func importedForms(t *testing.T) map[string]fob.ImportedKey {
	t.Helper()
	b64 := base64.RawStdEncoding.EncodeToString
	salt := []byte("0123456789abcdef")
	sum := sha256.Sum256([]byte(importedText))
	salted := sha512.Sum512(append(append([]byte(nil), salt...), importedText...))
	suffixed := sha512.Sum512(append([]byte(importedText), salt...))
	blow, err := bcrypt.GenerateFromPassword([]byte(importedText), bcrypt.MinCost)
	require.NoError(t, err)
	pb, err := pbkdf2.Key(sha256.New, importedText, salt, 1000, 32)
	require.NoError(t, err)
	argon := argon2.IDKey([]byte(importedText), salt, 1, 64, 1, 32)
	return map[string]fob.ImportedKey{
		"raw":                 {Secret: importedText},
		"raw with locator":    {Secret: importedText, Locator: "ab12cd"},
		"sha256":              {Hash: hex.EncodeToString(sum[:])},
		"sha256 with locator": {Hash: strings.ToUpper(hex.EncodeToString(sum[:])), Locator: "ab12cd"},
		"sha512 prefix":       {Hash: "$sha512$prefix$" + b64(salt) + "$" + b64(salted[:]), Locator: "ab12cd"},
		"sha512 suffix":       {Hash: "$sha512$suffix$" + b64(salt) + "$" + b64(suffixed[:]), Locator: "ab12cd"},
		"bcrypt":              {Hash: string(blow), Locator: "ab12cd"},
		"pbkdf2":              {Hash: "$pbkdf2-sha256$i=1000$" + b64(salt) + "$" + b64(pb), Locator: "ab12cd"},
		"django":              {Hash: "pbkdf2_sha256$1000$0123456789abcdef$" + base64.StdEncoding.EncodeToString(pb), Locator: "ab12cd"},
		"argon2id":            {Hash: "$argon2id$v=19$m=64,t=1,p=1$" + b64(salt) + "$" + b64(argon), Locator: "ab12cd"},
		"own digest":          {Digest: otherDigest(importedText)},
		"own digest located":  {Digest: otherDigest(importedText), Locator: "ab12cd"},
	}
}

func TestImportedKeysGoOnWorking(t *testing.T) {
	pepper := fob.Pepper{ID: "p1", Key: make([]byte, 32)}
	for name, known := range importedForms(t) {
		for _, peppers := range [][]fob.Pepper{nil, {pepper}} {
			t.Run(name, func(t *testing.T) {
				fault := backendtest.NewFault(memory.New())
				cfg := fob.Config{Imported: located(), Peppers: peppers}
				m := newManager(t, fault, cfg)
				key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"a"}}, known)
				require.NoError(t, err)
				require.True(t, key.Imported())

				cred := mustVerify(t, m, importedText)
				require.Equal(t, key.ID(), cred.ID())
				require.True(t, cred.Allows("a"))
				mustVerify(t, m, importedText)

				// Rehashed at its first use: what the other system had is gone.
				rec, err := fault.Get(t.Context(), idOf(key))
				require.NoError(t, err)
				if known.Hash != "" {
					require.NotContains(t, string(rec.Body), known.Hash)
				}
				require.NotContains(t, string(rec.Body), "s3cr3t")
				puts := fault.Calls(backendtest.OpPut)
				again := newManager(t, fault, cfg)
				mustVerify(t, again, importedText)
				require.Equal(t, puts, fault.Calls(backendtest.OpPut), "once")

				for _, wrong := range []string{
					importedText + "x", importedText[:len(importedText)-1], "ab12cd.S3cr3t-of-another-system", "ab12ce.s3cr3t-of-another-system",
					"ab12cd.", "ab12cd.x", known.Hash, hex.EncodeToString(known.Digest), strings.Repeat("x", 600),
				} {
					cred, err := again.Verify(t.Context(), wrong)
					require.ErrorIs(t, err, fob.ErrRejected, "%q", wrong)
					require.Nil(t, cred)
				}
				mustVerify(t, again, importedText)
				_, err = again.Revoke(t.Context(), key.ID(), "")
				require.NoError(t, err)
				mustReject(t, again, importedText, fob.ErrRevoked)
			})
		}
	}
}

func TestAnImportIsOnce(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: located()})
	spec := fob.KeySpec{Subject: fob.App("a")}
	_, err := m.ImportKey(t.Context(), spec, fob.ImportedKey{Secret: importedText})
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), spec, fob.ImportedKey{Secret: importedText})
	require.ErrorIs(t, err, fob.ErrConflict)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText})
	require.ErrorIs(t, err, fob.ErrConflict)
	require.Equal(t, "a", mustVerify(t, m, importedText).Subject().Name)
}

func TestAnImportCutOffAnywhereCanBeCalledAgain(t *testing.T) {
	for n := 0; ; n++ {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{Imported: located()})
		fault.CrashAfter(n)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		fault.Inject(nil)
		if err == nil {
			require.GreaterOrEqual(t, n, 3)
			return
		}
		mustReject(t, m, importedText, fob.ErrUnknown)
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		mustVerify(t, m, importedText)
	}
}

func TestWhatCannotBeImported(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: located()})
	native, _ := mustIssue(t, m, fob.KeySpec{})
	sum := sha256.Sum256([]byte(importedText))
	hash := hex.EncodeToString(sum[:])
	for name, c := range map[string]struct {
		spec  fob.KeySpec
		known fob.ImportedKey
	}{
		"nothing":          {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{}},
		"two things":       {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Hash: hash}},
		"short":            {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "short"}},
		"space":            {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "has a space in it"}},
		"native":           {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: native}},
		"unknown hash":     {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: "$md5$x"}},
		"salted, no place": {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: importedForms(t)["bcrypt"].Hash}},
		"wrong locator":    {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "zz"}},
		"short digest":     {fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Digest: []byte("short")}},
		"prefix":           {fob.KeySpec{Subject: fob.App("a"), Prefix: "acme_live"}, fob.ImportedKey{Secret: importedText}},
		"no subject":       {fob.KeySpec{}, fob.ImportedKey{Secret: importedText}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.ImportKey(t.Context(), c.spec, c.known)
			require.ErrorIs(t, err, fob.ErrInvalid)
		})
	}
	_, err := newManager(t, store, fob.Config{}).ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.NoError(t, func() error { _, err := m.Verify(t.Context(), native); return err }())
}

func TestImportedKeysAreRefusedWhereNoneAreExpected(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	calls := fault.Calls(backendtest.OpGet)
	mustReject(t, m, importedText, fob.ErrMalformed)
	require.Equal(t, calls, fault.Calls(backendtest.OpGet))
}

// The alias and the key are two records: a thief who may write aliases must not
// turn a native key's record into an imported one.
func TestANativeKeyIsNoImportedKey(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{}})
	text, key := mustIssue(t, m, fob.KeySpec{})
	imported, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText})
	require.NoError(t, err)
	mustReject(t, m, forge(t, "acme_live", imported.ID()), fob.ErrUnknown)
	require.Equal(t, key.ID(), mustVerify(t, m, text).ID())
}

func TestAFloodOfSlowChecksIsBounded(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{Locate: located().Locate, SlowChecks: 1}})
	hash, err := bcrypt.GenerateFromPassword([]byte(importedText), 8)
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: string(hash), Locator: "ab12cd"})
	require.NoError(t, err)
	var busy, rejected atomic.Int64
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			_, err := m.Verify(context.Background(), fmt.Sprintf("ab12cd.wrong-%d", n))
			switch {
			case errors.Is(err, fob.ErrBusy) && !errors.Is(err, fob.ErrRejected):
				busy.Add(1)
			case errors.Is(err, fob.ErrUnknown):
				rejected.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(100), busy.Load()+rejected.Load())
	require.NotZero(t, busy.Load(), "a full queue answers at once")
	require.NotZero(t, rejected.Load())
	mustVerify(t, m, importedText)
}

func TestAStoreThatFailsDuringAnImportedCheckIsNoRejection(t *testing.T) {
	for n := range 2 {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{Imported: located()})
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		fault.CrashAfter(n, backendtest.OpGet)
		_, err = m.Verify(t.Context(), importedText)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
}

// The same key in another form is the same key: it has one record, so that revoking
// it once is enough.
func TestAKeyIsImportedInOneForm(t *testing.T) {
	sum := sha256.Sum256([]byte(importedText))
	hash := hex.EncodeToString(sum[:])
	text, locatedText := fob.ImportedKey{Secret: importedText}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"}
	locatedHash, locatedDigest := fob.ImportedKey{Hash: hash, Locator: "ab12cd"}, fob.ImportedKey{Digest: otherDigest(importedText), Locator: "ab12cd"}
	plainHash, digest := fob.ImportedKey{Hash: hash}, fob.ImportedKey{Digest: otherDigest(importedText)}
	for name, forms := range map[string][2]fob.ImportedKey{
		"text, located text":     {text, locatedText},
		"located text, text":     {locatedText, text},
		"text, hash":             {text, plainHash},
		"text, located hash":     {text, locatedHash},
		"located hash, text":     {locatedHash, text},
		"hash, located hash":     {plainHash, locatedHash},
		"hash, located text":     {plainHash, locatedText},
		"digest, text":           {digest, text},
		"digest, located text":   {digest, locatedText},
		"digest, located digest": {digest, locatedDigest},
		"located digest, text":   {locatedDigest, text},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, nil, fob.Config{Imported: located()})
			first, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, forms[0])
			require.NoError(t, err)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, forms[1])
			require.ErrorIs(t, err, fob.ErrConflict)
			require.Equal(t, first.ID(), mustVerify(t, m, importedText).ID())
			_, err = m.Revoke(t.Context(), first.ID(), "leaked")
			require.NoError(t, err)
			mustReject(t, m, importedText, fob.ErrRevoked)
		})
	}
}

// A script that imports every night must not revive what was revoked, when its
// record has been purged.
func TestAnImportRevivesNothing(t *testing.T) {
	for name, known := range importedForms(t) {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			m := newManager(t, nil, fob.Config{Imported: located(), Clock: clock.Now})
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, known)
			require.NoError(t, err)
			_, err = m.Revoke(t.Context(), key.ID(), "leaked")
			require.NoError(t, err)
			clock.Add(91 * 24 * time.Hour)
			swept, err := m.Sweep(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, swept.Purged)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, known)
			require.ErrorIs(t, err, fob.ErrConflict)
			mustReject(t, m, importedText, fob.ErrUnknown)
		})
	}
}

// Of an import that was cut off no step is live before the last one; what was
// revoked meanwhile is not imported again.
func TestARevokedLeftOverIsNotImported(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{Imported: located()})
	fault.CrashAfter(2, backendtest.OpPut)
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
	require.Error(t, err)
	fault.Inject(nil)
	mustReject(t, m, importedText, fob.ErrUnknown)
	page, err := m.List(t.Context(), fob.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	_, err = m.Revoke(t.Context(), page.Items[0].ID(), "")
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
	require.ErrorIs(t, err, fob.ErrConflict)
	mustReject(t, m, importedText, fob.ErrUnknown)
}

func TestAnImportWhoseAnswersAreLost(t *testing.T) {
	for n := range 3 {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{Imported: located()})
		atPut(fault, n+1, backendtest.LostAck())
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		fault.Inject(nil)
		require.NoError(t, err)
		mustVerify(t, m, importedText)
	}
}

// Of many imports at once exactly one is told that it came through, and what it
// asked for holds.
func TestOfManyImportsAtOnceExactlyOneWins(t *testing.T) {
	for range 20 {
		m := newManager(t, nil, fob.Config{Imported: located()})
		var mu sync.Mutex
		var won []string
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				name := fmt.Sprint(n)
				_, err := m.ImportKey(context.Background(), fob.KeySpec{Subject: fob.App("a"), Name: name}, fob.ImportedKey{Secret: importedText})
				if err == nil {
					mu.Lock()
					won = append(won, name)
					mu.Unlock()
				} else if !errors.Is(err, fob.ErrAlready) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Len(t, won, 1)
		require.Equal(t, won[0], mustVerify(t, m, importedText).(*fob.Key).Name())
	}
}

func TestImportedTextThatIsTakenForATokenIsNotImported(t *testing.T) {
	cfg := tokenConfig()
	cfg.Imported = located()
	m := newManager(t, nil, cfg)
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "v1.0123456789abcdef"})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "v10.0123456789abcdef"})
	require.NoError(t, err)
	mustVerify(t, m, "v10.0123456789abcdef")
}

func TestADigestOfNoKeyMatchesNone(t *testing.T) {
	known := located()
	known.Digest = func(presented string) []byte {
		if !strings.HasPrefix(presented, "ab12cd.s3") {
			return nil
		}
		return otherDigest(presented)
	}
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: known})
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Digest: otherDigest(importedText), Locator: "ab12cd"})
	require.NoError(t, err)
	mustReject(t, m, "ab12cd.wrong-secret", fob.ErrUnknown)
	without := located()
	without.Digest = nil
	_, err = newManager(t, store, fob.Config{Imported: without}).Verify(t.Context(), importedText)
	mustBeUnsure(t, err) // it is Config that lacks something
	mustVerify(t, m, importedText)
}

// A locator is public: who knows one may keep that key busy, and no other.
func TestAFloodOnOneKeyLeavesTheOthersAlone(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: &fob.ImportedKeys{Locate: located().Locate, SlowChecks: 1}})
	for _, locator := range []string{"victim", "flooded"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(locator+".good-secret"), bcrypt.MinCost)
		require.NoError(t, err)
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: string(hash), Locator: locator})
		require.NoError(t, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var busy atomic.Int64
	for n := range 64 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := m.Verify(ctx, fmt.Sprintf("flooded.wrong-%d-%d", n, i)); errors.Is(err, fob.ErrBusy) {
					busy.Add(1)
				}
			}
		})
	}
	for busy.Load() < 100 {
		runtime.Gosched()
	}
	mustVerify(t, m, "victim.good-secret")
	stop()
	wg.Wait()
}

// SlowChecks is a number of cores, and argon2id takes one for each lane.
func TestAHashOfMoreLanesThanSlowChecks(t *testing.T) {
	store := memory.New()
	b64 := base64.RawStdEncoding.EncodeToString
	salt := []byte("0123456789abcdef")
	wide := fob.ImportedKey{
		Hash:    "$argon2id$v=19$m=64,t=1,p=4$" + b64(salt) + "$" + b64(argon2.IDKey([]byte(importedText), salt, 1, 64, 4, 32)),
		Locator: "ab12cd",
	}
	manager := func(checks int) *fob.Manager {
		return newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{Locate: located().Locate, SlowChecks: checks}})
	}
	_, err := manager(3).ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, wide)
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.ErrorContains(t, err, "SlowChecks")
	_, err = manager(4).ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, wide)
	require.NoError(t, err)
	_, err = manager(3).Verify(t.Context(), importedText)
	mustBeUnsure(t, err)
	mustVerify(t, manager(4), importedText)
	mustVerify(t, manager(3), importedText) // it has a digest of ours by now
}

// twoFaults calls try with every two faults at every two of the first calls of a
// store.
func twoFaults(t *testing.T, calls int, try func(t *testing.T, fault *backendtest.Fault, arm func())) {
	t.Helper()
	faults := map[string]backendtest.Injection{
		"answer lost":       backendtest.LostAck(),
		"not made, unknown": {Fail: backendtest.LostAck().Lose},
		"unavailable":       backendtest.Unavailable(),
	}
	for nameA, a := range faults {
		for nameB, b := range faults {
			t.Run(nameA+", "+nameB, func(t *testing.T) {
				for first := range calls {
					for second := first + 1; second <= calls; second++ {
						fault := backendtest.NewFault(memory.New())
						try(t, fault, func() {
							n := -1
							fault.Inject(func(c backendtest.Call) backendtest.Injection {
								if c.Op != backendtest.OpGet && c.Op != backendtest.OpPut {
									return backendtest.Injection{}
								}
								switch n++; n {
								case first:
									return a
								case second:
									return b
								}
								return backendtest.Injection{}
							})
						})
					}
				}
			})
		}
	}
}

func TestAnImportThatFailedTwiceCanBeCalledAgain(t *testing.T) {
	twoFaults(t, 9, func(t *testing.T, fault *backendtest.Fault, arm func()) {
		m := newManager(t, fault, fob.Config{Imported: located()})
		imported := func() error {
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
			return err
		}
		arm()
		first := imported()
		fault.Inject(nil)
		if err := imported(); first == nil || err != nil {
			require.ErrorIs(t, err, fob.ErrConflict, "it was imported")
		}
		mustVerify(t, m, importedText)
		page, err := m.List(t.Context(), fob.Query{})
		require.NoError(t, err)
		require.Len(t, page.Items, 1)
		require.NoError(t, m.Close())
	})
}

func TestAnIdempotentIssueThatFailedTwiceCanBeCalledAgain(t *testing.T) {
	twoFaults(t, 9, func(t *testing.T, fault *backendtest.Fault, arm func()) {
		m := newManager(t, fault, fob.Config{})
		spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
		arm()
		first, _, err := m.IssueKey(t.Context(), spec)
		fault.Inject(nil)
		text, _ := mustIssue(t, m, spec)
		if err == nil {
			require.Equal(t, first.Reveal(), text)
		}
		mustVerify(t, m, text)
		page, err := m.List(t.Context(), fob.Query{})
		require.NoError(t, err)
		require.Len(t, page.Items, 1)
		require.NoError(t, m.Close())
	})
}
