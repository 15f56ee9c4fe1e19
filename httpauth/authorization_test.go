package httpauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// visible is every character that a key of another system may have.
func visible() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}

// Every text that ImportKey takes is taken where keys are presented, as a bearer
// credential and in the key header.
func TestWhatCanBeImportedCanBePresented(t *testing.T) {
	const most = 4096
	m, err := fob.New(memory.New(), fob.Config{Prefix: "acme_live", SweepInterval: -1, Imported: &fob.ImportedKeys{MaxLength: most}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	guard, err := httpauth.Require(m, httpauth.Options{AnyCredential: true})
	require.NoError(t, err)
	server := httptest.NewServer(guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, _ := fob.FromContext(r.Context())
		_, _ = fmt.Fprint(w, cred.Subject().Name)
	})))
	defer server.Close()
	texts := []string{
		"42|abcdefghijklmnopqrstuvwxyz0123456789ABCD", "sk:live:0123456789", "user:password", "a,b,c,d,e,f", `"quoted-key"`, "Bearer,0123456789",
		"{\"k\":\"v\"}", "key=a;b=c", "<xml-like/>", "========", "a==b====", "\\\\\\\\\\\\\\\\", "%20%20%20", "~~~~~~~~", "!!!!!!!!",
		"v5.public.abc", "acme_live_short", strings.Repeat(`"`, most), strings.Repeat("=", most), visible(),
	}
	for i := range visible() {
		texts = append(texts, visible()[i:i+1]+"1234567", "1234567"+visible()[i:i+1], "1234"+visible()[i:i+1]+"567")
	}
	seen := map[string]bool{}
	for _, text := range texts {
		if seen[text] {
			continue
		}
		seen[text] = true
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")}, fob.ImportedKey{Secret: text})
		require.NoError(t, err, "%q", text)
		for _, h := range []header{{"Authorization", "Bearer " + text}, {"authorization", "bearer   " + text}, {"X-API-Key", text}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			req.Header.Set(h[0], h[1])
			res, err := server.Client().Do(req)
			require.NoError(t, err)
			_ = res.Body.Close()
			require.Equal(t, 200, res.StatusCode, "%s %q", h[0], text)
		}
	}
}

// What is, and what is no, credential, with what the verifier is asked.
func TestWhatIsACredential(t *testing.T) {
	const none, bad = 401, 400
	long := strings.Repeat("a", 8<<10)
	type lines = []string
	for name, c := range map[string]struct {
		auth, key lines
		status    int // none and bad, or 200 with what is presented
		presented string
	}{
		"nothing": {nil, nil, none, ""},
		// An empty Authorization names no scheme: nobody has tried anything.
		"an empty Authorization": {lines{""}, nil, none, ""},
		"one of spaces":          {lines{"   "}, nil, none, ""},
		"one of tabs":            {lines{"\t \t"}, nil, none, ""},
		"an empty Authorization beside a good key":    {lines{""}, lines{"good"}, 200, "good"},
		"one of spaces beside a good key":             {lines{"  "}, lines{"good"}, 200, "good"},
		"another scheme":                              {lines{"Basic Zm9v"}, nil, none, ""},
		"another scheme alone":                        {lines{"Negotiate"}, nil, none, ""},
		"another scheme, long":                        {lines{"Negotiate " + strings.Repeat("a", 64<<10)}, nil, none, ""},
		"another scheme, long, beside a good key":     {lines{"Negotiate " + strings.Repeat("a", 64<<10)}, lines{"good"}, 200, "good"},
		"another scheme that begins like it":          {lines{"BearerX good"}, nil, none, ""},
		"a bare key in Authorization":                 {lines{"good"}, nil, none, ""},
		"two schemes, joined, the other first":        {lines{"Basic Zm9v, Bearer good"}, nil, none, ""},
		"Bearer":                                      {lines{"Bearer good"}, nil, 200, "good"},
		"Bearer with spaces":                          {lines{"bEARER" + strings.Repeat(" ", 64) + "good"}, nil, 200, "good"},
		"a comma":                                     {lines{"Bearer a,b"}, nil, 200, "a,b"},
		"a quote":                                     {lines{`Bearer a"b`}, nil, 200, `a"b`},
		"a scheme in the credential":                  {lines{"Bearer Bearer"}, nil, 200, "Bearer"},
		"as long as it may be":                        {lines{"Bearer " + long}, nil, 200, long},
		"as long as it may be, in the key header":     {nil, lines{long}, 200, long},
		"as long as it may be, after as many spaces":  {lines{"Bearer" + strings.Repeat(" ", 64) + long}, nil, 200, long},
		"one byte more":                               {lines{"Bearer " + long + "a"}, nil, bad, ""},
		"one byte more, in the key header":            {nil, lines{long + "a"}, bad, ""},
		"a bare text that long":                       {lines{long}, nil, none, ""},
		"a bare text that is longer":                  {lines{long + "a"}, nil, bad, ""},
		"too many spaces":                             {lines{"Bearer" + strings.Repeat(" ", 65) + long}, nil, bad, ""},
		"as many spaces as a credential may have":     {lines{strings.Repeat(" ", 8<<10)}, nil, none, ""},
		"spaces without end":                          {lines{strings.Repeat(" ", 9<<10)}, nil, bad, ""},
		"spaces without end and a scheme":             {lines{strings.Repeat(" ", 9<<10) + "Bearer good"}, nil, bad, ""},
		"nothing but a scheme and spaces without end": {lines{"Bearer" + strings.Repeat(" ", 9<<10)}, nil, bad, ""},
		// Bearer, and the key header, are there for a credential: whoever sends them
		// without one has tried, with a variable that is empty, say.
		"Bearer alone":                        {lines{"Bearer"}, nil, bad, ""},
		"Bearer and a space":                  {lines{"Bearer "}, nil, bad, ""},
		"Bearer and spaces":                   {lines{"Bearer    "}, nil, bad, ""},
		"Bearer alone beside a good key":      {lines{"Bearer"}, lines{"good"}, bad, ""},
		"an empty key header":                 {nil, lines{""}, bad, ""},
		"a key header of spaces":              {nil, lines{"  "}, bad, ""},
		"both empty":                          {lines{""}, lines{""}, bad, ""},
		"an empty key header beside Bearer":   {lines{"Bearer good"}, lines{""}, bad, ""},
		"an empty key header beside Basic":    {lines{"Basic Zm9v"}, lines{""}, bad, ""},
		"two credentials":                     {lines{"Bearer good"}, lines{"good"}, bad, ""},
		"two lines":                           {lines{"Bearer good", "Bearer good"}, nil, bad, ""},
		"two lines, the first empty":          {lines{"", "Bearer good"}, nil, bad, ""},
		"two lines, the second empty":         {lines{"Bearer good", ""}, nil, bad, ""},
		"two empty lines":                     {lines{"", ""}, nil, bad, ""},
		"two lines of the key header":         {nil, lines{"good", ""}, bad, ""},
		"two, joined":                         {lines{"Bearer good, Bearer good"}, nil, bad, ""},
		"two, joined, of two schemes":         {lines{"Bearer good, Basic Zm9v"}, nil, bad, ""},
		"two, by a space":                     {lines{"Bearer good good"}, nil, bad, ""},
		"a parameter":                         {lines{`Bearer token="good", realm="x"`}, nil, bad, ""},
		"a space inside the key header":       {nil, lines{"go od"}, bad, ""},
		"a space before Bearer":               {lines{" Bearer good"}, nil, bad, ""},
		"a space after":                       {lines{"Bearer good "}, nil, bad, ""},
		"a tab instead of the space":          {lines{"Bearer\tgood"}, nil, bad, ""},
		"a tab after the space":               {lines{"Bearer \tgood"}, nil, bad, ""},
		"a tab inside":                        {lines{"Bearer go\tod"}, nil, bad, ""},
		"NUL":                                 {lines{"Bearer go\x00od"}, nil, bad, ""},
		"DEL":                                 {lines{"Bearer go\x7fod"}, nil, bad, ""},
		"a line break":                        {lines{"Bearer go\r\nod"}, nil, bad, ""},
		"Latin-1":                             {lines{"Bearer go\xe9od"}, nil, bad, ""},
		"UTF-8":                               {lines{"Bearer goéod"}, nil, bad, ""},
		"a space of another width":            {lines{"Bearer\u00a0good"}, nil, bad, ""},
		"UTF-8 in the key header":             {nil, lines{"goéod"}, bad, ""},
		"a scheme that is none":               {lines{`"Bearer" good`}, nil, bad, ""},
		"a scheme of other letters, the same": {lines{"\u0392earer good"}, nil, bad, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			verifier := fob.VerifierFunc(func(_ context.Context, presented string) (fob.Credential, error) {
				asked = append(asked, presented)
				return nil, fob.ErrBusy
			})
			var reasons []error
			guard, err := httpauth.Require(verifier, httpauth.Options{AnyCredential: true, Observe: func(_ *http.Request, _ int, reason error) { reasons = append(reasons, reason) }})
			require.NoError(t, err)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if c.auth != nil {
				r.Header["Authorization"] = c.auth
			}
			if c.key != nil {
				r.Header["X-Api-Key"] = c.key
			}
			w := httptest.NewRecorder()
			guard(http.NotFoundHandler()).ServeHTTP(w, r)
			require.Len(t, reasons, 1)
			switch c.status {
			case 200:
				require.Equal(t, 503, w.Code, "as the verifier says")
				require.Equal(t, []string{c.presented}, asked)
				return
			case none:
				require.ErrorIs(t, reasons[0], httpauth.ErrNoCredential)
				require.Equal(t, "no_credential", fob.Reason(reasons[0]))
				require.Equal(t, realm, w.Header().Get("WWW-Authenticate"))
			default:
				require.ErrorIs(t, reasons[0], httpauth.ErrRequest)
				require.Equal(t, "bad_request", fob.Reason(reasons[0]))
				require.Equal(t, realm+`, error="invalid_request"`, w.Header().Get("WWW-Authenticate"))
			}
			require.Equal(t, c.status, w.Code)
			require.Empty(t, asked)
		})
	}
}
