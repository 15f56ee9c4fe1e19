package fob_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/davecgh/go-spew/spew"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// harmless are the exported types in which there is no secret, and why. What is not
// here is a specimen of TestNothingPrintsASecret; a new type is one or the other.
var harmless = map[string]string{
	"Applied": "counts", "CacheStats": "counts", "Swept": "counts", "Usage": "counts and times", "Health": "times and errors, which quote nothing",
	"Credential": "an interface; its kinds are specimens", "Observer": "an interface", "TokenKeySource": "an interface", "Verifier": "an interface",
	"ObserverFunc": "a function", "VerifierFunc": "a function", "ImportedKeys": "functions and numbers", "TokenVerifierConfig": "names, times and a function",
	"Account": "public", "Subject": "public", "Target": "an interface; its kinds are public", "Actor": "a name, an address and a credential, which prints as its ID", "Session": "public", "Renewal": "what a token says", "Order": "a number", "Roles": "names and scopes", "Cursor": "the place of a record", "ID": "public", "Kind": "a number", "Status": "a number", "SubjectKind": "a number", "EventType": "a number", "Protocol": "a number",
	"RevokeReason": "a label", "Scope": "public", "Scopes": "public", "Grant": "public", "Grants": "public", "Resource": "public",
	"Event": "who and what, and errors that quote nothing", "KeyUpdate": "labels and scopes", "Query": "labels", "Page": "Keys", "Receipt": "times", "Revocation": "IDs and times",
	"Rotation": "times", "RotationStatus": "IDs and times", "TokenSpec": "what a token says: whoever has it can read it", "PublicTokenKeys": "public keys",

	"httpauth.Options": "names and functions",

	"backend.Batch": "IDs", "backend.Change": "an ID", "backend.Cond": "a number", "backend.Cursor": "the place of a record", "backend.ID": "public", "backend.Kind": "a number",
	"backend.BulkReader": "an interface", "backend.Counter": "an interface", "backend.Clock": "an interface", "backend.Lister": "an interface", "backend.Maintainer": "an interface", "backend.Purger": "an interface", "backend.Scanner": "an interface", "backend.Store": "an interface", "backend.UsageRecorder": "an interface",
	"backend.Watcher": "an interface", "backend.Wrapper": "an interface", "backend.Page": "Records", "backend.Query": "IDs and labels", "backend.Token": "the place in a feed",
	"backend.Usage": "counts and times", "backend.Record": "what is stored: no secret, only digests and what is sealed",

	"memory.Store": "Records",
	"badger.Stats": "counts",
}

// The ways of printing that ask a type nothing, so that Go leaves it no say.
const (
	wrongVerb  = "fmt with %p and %w"              // for no pointer and no error: a mistake that go vet reports
	fmtHidden  = "fmt, of an unexported field"     // fmt calls no method there
	reflection = "reflection that calls no method" // testify's diff, spew with DisableMethods
)

// unpreventable are the types that show what is in them all the same where nobody asks
// them, by the way of printing. They have exported fields of plain types, which users
// fill in, or hold what they need for each request. Each is named in the threat model.
var unpreventable = map[string]string{
	"Pepper": wrongVerb + "; " + fmtHidden + "; " + reflection, "ImportedKey": wrongVerb + "; " + fmtHidden + "; " + reflection,
	"TokenConfig": wrongVerb + "; " + fmtHidden + "; " + reflection, "Config": wrongVerb + "; " + fmtHidden + "; " + reflection,
	"KeySpec":            wrongVerb + "; " + fmtHidden + "; " + reflection,
	"Manager":            reflection,
	"httpauth.KeyClient": reflection,

	"badger.Options":       wrongVerb + "; " + fmtHidden + "; " + reflection,
	"badger.EncryptionKey": wrongVerb + "; " + fmtHidden + "; " + reflection,
	"badger.BackupKey":     wrongVerb + "; " + fmtHidden + "; " + reflection,
	"badger.Store":         reflection,
}

// holder is how a program may hold a value in its own exported field.
type holder[T any] struct{ V T }

// shutHolder is the same in an unexported one.
type shutHolder[T any] struct{ v T }

type held struct {
	how  string
	shut bool // in an unexported field
	v    any
}

func holders[T any](v T) []held {
	p, iface := &v, any(v)
	open := map[string]any{
		"value": v, "pointer": p, "pointer to a pointer": &p, "slice": []T{v}, "slice of pointers": []*T{p}, "slices": [][]T{{v}}, "array": [1]T{v}, "pointer to an array": &[1]T{v},
		"map": map[string]T{"k": v}, "map of pointers": map[string]*T{"k": p}, "map of slices": map[int][]T{1: {v}}, "field": holder[T]{v}, "field of a pointer": holder[*T]{p},
		"field of slices": &holder[[]T]{[]T{v}}, "field of a map": holder[map[string]T]{map[string]T{"k": v}}, "field of a field": holder[holder[T]]{holder[T]{v}}, "any": holder[any]{v},
		"pointer to any": &iface, "slice of any": []any{v, p}, "map of any": map[string]any{"k": v, "p": p}, "map by any": map[any]any{"k": v}, "reflect.Value": reflect.ValueOf(v),
		"struct without a name": struct{ A, B T }{v, v},
	}
	shut := map[string]any{
		"field": shutHolder[T]{v}, "field of a pointer": shutHolder[*T]{p}, "pointer to a field": &shutHolder[T]{v}, "any": shutHolder[any]{v}, "any pointer": shutHolder[any]{p},
		"slice": shutHolder[[]T]{[]T{v}}, "map": shutHolder[map[string]T]{map[string]T{"k": v}}, "field of a field": holder[shutHolder[T]]{shutHolder[T]{v}},
		"slice of them": []shutHolder[T]{{v}},
	}
	var all []held
	for _, how := range slices.Sorted(maps.Keys(open)) {
		all = append(all, held{how, false, open[how]})
	}
	for _, how := range slices.Sorted(maps.Keys(shut)) {
		all = append(all, held{how, true, shut[how]})
	}
	return all
}

// fake takes what a failed assertion says.
type fake struct{ bytes.Buffer }

func (f *fake) Errorf(format string, args ...any) { fmt.Fprintf(f, format, args...) }

// printers are all but the verbs of fmt. What fails has printed nothing, or its error.
func printers() map[string]func(v any) string {
	spewed := func(c spew.ConfigState) func(any) string {
		c.Indent = " "
		return func(v any) string {
			return c.Sdump(v) + c.Sprintf("%v %+v %#v %#+v", v, v, v, v) + c.Sprint(v) + c.Sprintln(v)
		}
	}
	failed := func(check func(t *fake, v any)) func(any) string {
		return func(v any) string {
			var t fake
			check(&t, v)
			return t.String()
		}
	}
	logged := func(h func(*bytes.Buffer) slog.Handler) func(any) string {
		return func(v any) string {
			var out bytes.Buffer
			l := slog.New(h(&out))
			l.Info("x", "v", v)
			l.Info("x", slog.Group("g", slog.Any("v", v)), slog.Any("s", []any{v}))
			l.With("v", v).WithGroup("g").Info("x", "w", v)
			return out.String()
		}
	}
	return map[string]func(any) string{
		"fmt.Print": func(v any) string { return fmt.Sprint(v, v) + fmt.Sprintln(v, v) + string(fmt.Append(nil, v)) },
		"fmt.Errorf": func(v any) string {
			return fmt.Errorf("wrapped: %v: %+v", v, v).Error()
		},
		"fmt, wrong": func(v any) (out string) {
			for _, format := range []string{"x", "%", "%d%%", "%*d", "%.*d", "%[2]d", "%[1]*[1]d", "%[x]d", "%!", "%-", "%.[1]*d", "%d %[1]s %[3]d"} {
				out += fmt.Sprintf(format, v) + fmt.Sprintf(format, v, 1) + fmt.Sprintf(format, 1, v)
			}
			return out
		},
		"json": func(v any) string {
			b, err := json.MarshalIndent(v, "", " ")
			return fmt.Sprint(string(b), err)
		},
		"json, streamed": func(v any) string {
			var out bytes.Buffer
			err := json.NewEncoder(&out).Encode(map[string]any{"v": v})
			return fmt.Sprint(out.String(), err)
		},
		"xml": func(v any) string {
			var out bytes.Buffer
			e := xml.NewEncoder(&out)
			err := e.Encode(v)
			_ = e.Flush()
			err2 := e.EncodeElement(v, xml.StartElement{Name: xml.Name{Local: "v"}})
			_ = e.Flush()
			return fmt.Sprint(out.String(), err, err2)
		},
		"gob": func(v any) string {
			var out bytes.Buffer
			err := gob.NewEncoder(&out).Encode(v)
			return fmt.Sprint(out.String(), err)
		},
		"yaml": func(v any) (said string) {
			var out bytes.Buffer
			defer func() { said = fmt.Sprint(out.String(), said, recover()) }() // of a func
			e := yaml.NewEncoder(&out)
			err := e.Encode(v)
			return fmt.Sprint(err)
		},
		"template": func(v any) string {
			var out bytes.Buffer
			err := template.Must(template.New("").Parse(`{{.}} {{print .}} {{printf "%v %+v %q" . . .}}`)).Execute(&out, v)
			return fmt.Sprint(out.String(), err)
		},
		"slog text": logged(func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }),
		"slog JSON": logged(func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }),
		"spew":      spewed(spew.ConfigState{}),
		"spew, sorted": spewed(spew.ConfigState{
			SortKeys: true, SpewKeys: true, ContinueOnMethod: false, DisablePointerAddresses: true,
		}),
		"spew without methods": spewed(spew.ConfigState{DisableMethods: true, DisablePointerAddresses: true}),
		"testify Equal":        failed(func(t *fake, v any) { assert.Equal(t, v, reflect.Zero(reflect.TypeOf(v)).Interface()) }),
		"testify EqualValues":  failed(func(t *fake, v any) { assert.EqualValues(t, reflect.Zero(reflect.TypeOf(v)).Interface(), v) }),
		"testify ElementsMatch": failed(func(t *fake, v any) {
			assert.ElementsMatch(t, []any{v}, []any{1})
		}),
		"testify, others": failed(func(t *fake, v any) {
			assert.Nil(t, v)
			assert.Empty(t, v)
			assert.Same(t, v, &struct{}{})
			assert.NotEqual(t, v, v)
			assert.Contains(t, []any{1}, v)
			assert.Contains(t, v, 1)
			assert.IsType(t, 1, v)
			assert.Len(t, v, 99)
			assert.Less(t, v, v)
			assert.True(t, false, v)
			assert.True(t, false, "%v", v)
			assert.Fail(t, "x", "%+v %#v", v, v)
		}),
	}
}

// reflects says which of the printers ask no type how to print it.
var reflects = []string{"spew without methods", "testify Equal", "testify EqualValues", "testify ElementsMatch"}

// formats are every verb, those that fmt keeps to itself and those that are none too,
// with its flags.
func formats() (all []string) {
	for c := 'A'; c <= 'z'; c++ {
		if c > 'Z' && c < 'a' {
			continue
		}
		for _, flags := range []string{"", "+", "#", "# ", "-#0+9", ".99"} {
			all = append(all, "%"+flags+string(c))
		}
	}
	return append(all, "%é", "%_", "%@", "%[1]v%[1]x")
}

// needles are what to look for in what was printed: a secret in any form that fmt or an
// encoding gives to bytes. Those of "" are for every output, those of a format for its.
func needles(secrets []string, formats []string) map[string][]string {
	all := map[string][]string{}
	for _, secret := range secrets {
		all[""] = append(all[""], spellings(secret)...)
		all[""] = append(all[""], base64.RawURLEncoding.EncodeToString([]byte(secret)))
		for _, format := range formats {
			for _, plain := range []any{secret, []byte(secret)} {
				core := strings.Trim(fmt.Sprintf(format, plain), "[]{} ")
				if !strings.HasPrefix(core, "%!") && !strings.HasPrefix(core, "0x") && len(core) >= len(secret) && !slices.Contains(all[""], core) {
					all[format] = append(all[format], core)
				}
			}
		}
	}
	return all
}

func contains(out string, needles []string) bool {
	return slices.ContainsFunc(needles, func(s string) bool { return strings.Contains(out, s) })
}

// sample is a type that holds a secret.
type sample struct {
	held    []held
	secrets []string
	large   bool // too much is in it for the printers that follow every pointer
}

func samples(t *testing.T) map[string]sample {
	const (
		word     = "SECRETWORDSECRETWORDSECRETWORDSE" // 32 bytes
		tokenKey = "TOKENKEYSEALTOKENKEYSEALTOKENKEY"
	)
	pepper := fob.Pepper{ID: "p1", Key: []byte(word)}
	tokens := fob.TokenConfig{Issuer: "i", SealKey: []byte(tokenKey)}
	cfg := fob.Config{Prefix: "acme_live", Peppers: []fob.Pepper{pepper}, Tokens: &tokens, SweepInterval: -1, CacheEntries: 1, Imported: located()}
	m, err := fob.New(memory.New(), cfg)
	require.NoError(t, err)
	secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")})
	require.NoError(t, err)
	options := badger.Options{EncryptionKey: badger.EncryptionKey(word)}
	store, err := badger.Open(t.TempDir(), options)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("app-42"), Refreshable: true})
	require.NoError(t, err)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Close()) // fmt reads what is in it without a lock
	block := keytext.Block(secret.Reveal())
	verifier, err := fob.NewTokenVerifier(fob.PublicTokenKeys{}, fob.TokenVerifierConfig{Issuer: "i", Audiences: []string{"a"}, CacheEntries: 1})
	require.NoError(t, err)
	client, err := httpauth.NewKeyClient("https://keys.example/?sig="+word, &http.Client{})
	require.NoError(t, err)
	text := []string{secret.Reveal(), string(block[17:])}
	return map[string]sample{
		"Secret":             {holders(secret), text, false},
		"Issued":             {holders(issued), []string{issued.Access.Reveal(), issued.Refresh.Reveal()}, false},
		"Pepper":             {holders(pepper), []string{word}, false},
		"TokenConfig":        {holders(tokens), []string{tokenKey}, false},
		"Config":             {holders(cfg), []string{word, tokenKey}, false},
		"ImportedKey":        {holders(fob.ImportedKey{Secret: word, Digest: []byte(tokenKey)}), []string{word, tokenKey}, false},
		"KeySpec":            {holders(fob.KeySpec{Subject: fob.App("app-42"), IdempotencyKey: word}), []string{word}, false},
		"TokenKey":           {holders(keys[0]), []string{tokenKey}, false},
		"Key":                {holders(key), append(text, word), false},
		"Token":              {holders(issued.Token), []string{issued.Access.Reveal()}, false},
		"Manager":            {holders(m), append(text, word, tokenKey), true},
		"TokenVerifier":      {holders(verifier), []string{word}, true},
		"httpauth.KeyClient": {holders(client), []string{word}, false},

		"badger.Options":       {holders(options), []string{word}, false},
		"badger.EncryptionKey": {holders(options.EncryptionKey), []string{word}, false},
		"badger.BackupKey":     {holders(badger.BackupKey(word)), []string{word}, false},
		"badger.Store":         {holders(store), []string{word}, true},
	}
}

// TestNothingPrintsASecret prints every type that holds a secret, however it is held,
// in every way. What shows it is in unpreventable, and what is there shows it.
func TestNothingPrintsASecret(t *testing.T) {
	all, verbs := printers(), formats()
	for name, s := range samples(t) {
		t.Run(name, func(t *testing.T) {
			seen, reported := map[string]bool{}, map[string]bool{}
			leak := func(class, how, printer string) {
				if class != "" && strings.Contains(unpreventable[name], class) {
					seen[class] = true
				} else if at := class + printer; !reported[at] {
					reported[at] = true
					t.Errorf("%s shows itself: held as %s, printed by %s (%s)", name, how, printer, class)
				}
			}
			secrets := needles(s.secrets, verbs)
			for _, h := range s.held {
				how := h.how
				if h.shut {
					how += " that is not exported"
				}
				for _, format := range verbs {
					out := fmt.Sprintf(format, h.v)
					verb := format[len(format)-1]
					if verb == 'w' {
						out += fmt.Errorf(format, h.v).Error()
					}
					switch {
					case !contains(out, secrets[""]) && !contains(out, secrets[format]):
					case verb == 'p' || verb == 'w':
						leak(wrongVerb, how, format)
					case h.shut:
						leak(fmtHidden, how, format)
					default:
						leak("", how, format)
					}
				}
				for printer, print := range all {
					if s.large && (slices.Contains(reflects, printer) || strings.HasPrefix(printer, "spew")) {
						continue
					}
					switch {
					case !contains(print(h.v), secrets[""]):
					case slices.Contains(reflects, printer):
						leak(reflection, how, printer)
					case h.shut && (strings.HasPrefix(printer, "fmt") || printer == "template" || printer == "slog text" || printer == "testify, others"):
						leak(fmtHidden, how, printer)
					default:
						leak("by "+printer, how, printer)
					}
				}
			}
			for class := range strings.SplitSeq(unpreventable[name], "; ") {
				if class != "" && !seen[class] && !s.large {
					t.Errorf("%s no longer shows itself by %s: take it from the list, and from the threat model", name, class)
				}
			}
		})
	}
}

// Every exported type is one that is printed above, or one of which it is said why not.
func TestEveryTypeIsKnownToThePrintingTest(t *testing.T) {
	known := samples(t)
	found := map[string]bool{}
	for dir, before := range map[string]string{".": "", "httpauth": "httpauth.", "backend": "backend.", "backend/memory": "memory.", "backend/badger": "badger."} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, d := range parsed.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, spec := range g.Specs {
					if typ, ok := spec.(*ast.TypeSpec); ok && typ.Name.IsExported() {
						name := before + typ.Name.Name
						found[name] = true
						_, printed := known[name]
						require.NotEqual(t, printed, harmless[name] != "", "%s: want a specimen, or a reason why it holds no secret", name)
					}
				}
			}
		}
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(known)), slices.Collect(maps.Keys(harmless)), slices.Collect(maps.Keys(unpreventable))) {
		require.True(t, found[name], "%s is no type", name)
	}
}

// A Secret is what it was: a value that can be copied, compared with its copies, and
// used as a key.
func TestASecretIsAValue(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	one, _, err := m.IssueKey(t.Context(), spec)
	require.NoError(t, err)
	again, _, err := m.IssueKey(t.Context(), spec)
	require.NoError(t, err)
	same := one
	require.Equal(t, one, same)
	require.True(t, one == same)
	require.Equal(t, fob.Secret{}, fob.Secret{})
	require.True(t, fob.Secret{}.IsZero())
	require.False(t, one.IsZero())
	require.Equal(t, map[fob.Secret]int{one: 1}[same], 1)
	require.Equal(t, one.Reveal(), again.Reveal())
	require.False(t, one == again, "compare what they reveal")
	_, err = one.MarshalBinary()
	require.ErrorIs(t, err, fob.ErrInvalid)
}
