package interop_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	oracle "aidanwoods.dev/go-paseto"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

// payload is what a token of ours looks like. Its times are far from now: some
// of the libraries compare them with the clock.
const payload = `{"iss":"acme","sub":"user-7","aud":"api","jti":"0ZqKJ3vT9xWm4cRb","iat":"2020-11-23T08:00:00Z","nbf":"2020-11-23T08:00:00Z",` +
	`"exp":"2096-11-23T08:15:00Z","scope":"orders:read","use":"access","authorization_details":[{"type":"orders","actions":["read"],"identifiers":["42"]}]}`

// keys are a pair of ours for one protocol, and their text forms.
type keys struct {
	sealer             paseto.Sealer
	opener             paseto.Opener
	sealText, openText string
}

func newKeys(t *testing.T, p paseto.Protocol) keys {
	t.Helper()
	if p.Local() {
		k, err := paseto.NewSymmetricKey(p)
		require.NoError(t, err)
		return keys{k, k, k.PASERK(), k.PASERK()}
	}
	k, err := paseto.NewSecretKey(p)
	require.NoError(t, err)
	return keys{k, k.Public(), k.PASERK(), k.Public().PASERK()}
}

func open(k paseto.Opener, text, assertion string) (payload, footer string, err error) {
	token, err := paseto.Parse(text)
	if err != nil {
		return "", "", err
	}
	b, err := k.Open(token, assertion)
	return string(b), string(token.Footer()), err
}

// peer is another implementation.
type peer interface {
	seal(t *testing.T, p paseto.Protocol, k keys, footer, assertion string) string
	// open returns an error for what it refuses.
	open(t *testing.T, p paseto.Protocol, k keys, token, footer, assertion string) (payload, gotFooter string, err error)
}

// bothWays is the test of one peer and protocol.
func bothWays(t *testing.T, p paseto.Protocol, other peer) {
	k, stranger := newKeys(t, p), newKeys(t, p)
	footer := `{"kid":"` + k.opener.ID() + `"}`
	assertion := "tenant-1"
	if p.Version() == 2 {
		assertion = "" // version 2 has none
	}
	theirs := other.seal(t, p, k, footer, assertion)
	gotPayload, gotFooter, err := open(k.opener, theirs, assertion)
	require.NoError(t, err)
	require.JSONEq(t, payload, gotPayload)
	require.Equal(t, footer, gotFooter)
	refused := func(opener paseto.Opener, text, assertion, why string) {
		t.Helper()
		_, _, err := open(opener, text, assertion)
		require.ErrorIs(t, err, paseto.ErrSeal, why)
	}
	refused(stranger.opener, theirs, assertion, "another key")
	refused(k.opener, withFooter(theirs, otherFooter), assertion, "another footer")
	for _, text := range flips(theirs) {
		refused(k.opener, text, assertion, "a character changed")
	}
	if assertion != "" {
		refused(k.opener, theirs, "tenant-2", "another assertion")
	}

	ours, err := k.sealer.Seal(payload, footer, assertion)
	require.NoError(t, err)
	gotPayload, gotFooter, err = other.open(t, p, k, ours, footer, assertion)
	require.NoError(t, err)
	require.JSONEq(t, payload, gotPayload)
	require.Equal(t, footer, gotFooter)

	_, _, err = other.open(t, p, stranger, ours, footer, assertion)
	require.Error(t, err, "another key")
	for _, text := range flips(ours) {
		_, _, err = other.open(t, p, k, text, footer, assertion)
		require.Error(t, err, "a character changed")
	}
	_, _, err = other.open(t, p, k, withFooter(ours, otherFooter), otherFooter, assertion)
	require.Error(t, err, "another footer")
	if assertion != "" {
		_, _, err = other.open(t, p, k, ours, footer, "tenant-2")
		require.Error(t, err, "another assertion")
	}
}

const otherFooter = `{"kid":"other"}`

// withFooter is the token with another footer under the same seal.
func withFooter(token, footer string) string {
	return token[:strings.LastIndex(token, ".")+1] + base64.RawURLEncoding.EncodeToString([]byte(footer))
}

// flips are the token with one character changed: near the start of its body,
// and near the end, where the signature or tag is. Neither is the last, whose
// spare bits might not be looked at.
func flips(token string) []string {
	var out []string
	for _, at := range []int{len("v4.public.") + 20, strings.LastIndex(token, ".") - 20} {
		c := "A"
		if token[at] == 'A' {
			c = "B"
		}
		out = append(out, token[:at]+c+token[at+1:])
	}
	return out
}

// goPaseto is aidanwoods.dev/go-paseto.
type goPaseto struct{}

func (goPaseto) seal(t *testing.T, p paseto.Protocol, k keys, footer, assertion string) string {
	token, err := oracle.NewTokenFromClaimsJSON([]byte(payload), []byte(footer))
	require.NoError(t, err)
	if p == paseto.V4Local {
		return token.V4Encrypt(symmetric(t, k), []byte(assertion))
	}
	secret, err := oracle.NewV4AsymmetricSecretKeyFromBytes(material(t, k.sealText))
	require.NoError(t, err)
	return token.V4Sign(secret, []byte(assertion))
}

func (goPaseto) open(t *testing.T, p paseto.Protocol, k keys, text, _, assertion string) (string, string, error) {
	var token *oracle.Token
	var err error
	parser := oracle.NewParser()
	if p == paseto.V4Local {
		token, err = parser.ParseV4Local(symmetric(t, k), text, []byte(assertion))
	} else {
		public, bad := oracle.NewV4AsymmetricPublicKeyFromBytes(material(t, k.openText))
		require.NoError(t, bad)
		token, err = parser.ParseV4Public(public, text, []byte(assertion))
	}
	if err != nil {
		return "", "", err
	}
	return string(token.ClaimsJSON()), string(token.Footer()), nil
}

func symmetric(t *testing.T, k keys) oracle.V4SymmetricKey {
	key, err := oracle.V4SymmetricKeyFromBytes(material(t, k.sealText))
	require.NoError(t, err)
	return key
}

func material(t *testing.T, paserk string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(paserk[strings.LastIndex(paserk, ".")+1:])
	require.NoError(t, err)
	return b
}

func TestGo(t *testing.T) {
	for _, p := range []paseto.Protocol{paseto.V4Local, paseto.V4Public} {
		t.Run(p.String(), func(t *testing.T) { bothWays(t, p, goPaseto{}) })
	}
}

// node is a library of a JavaScript process.
type node struct {
	library string
	in      io.Writer
	out     *bufio.Reader
}

type request struct {
	Library   string          `json:"library"`
	Op        string          `json:"op"`
	Protocol  string          `json:"protocol"`
	Key       string          `json:"key"`
	Payload   json.RawMessage `json:"payload,omitempty"`
	Token     string          `json:"token,omitempty"`
	Footer    string          `json:"footer"`
	Assertion string          `json:"assertion"`
}

type answer struct {
	Token   string
	Payload json.RawMessage
	Footer  string
	Error   string
}

func (n node) ask(t *testing.T, r request) answer {
	t.Helper()
	r.Library = n.library
	line, err := json.Marshal(r)
	require.NoError(t, err)
	_, err = n.in.Write(append(line, '\n'))
	require.NoError(t, err)
	line, err = n.out.ReadBytes('\n')
	require.NoError(t, err, "the JavaScript process ended")
	var a answer
	require.NoError(t, json.Unmarshal(line, &a), "%s", line)
	return a
}

func (n node) seal(t *testing.T, p paseto.Protocol, k keys, footer, assertion string) string {
	a := n.ask(t, request{Op: "seal", Protocol: p.String(), Key: k.sealText, Payload: json.RawMessage(payload), Footer: footer, Assertion: assertion})
	require.Empty(t, a.Error)
	return a.Token
}

func (n node) open(t *testing.T, p paseto.Protocol, k keys, token, footer, assertion string) (string, string, error) {
	a := n.ask(t, request{Op: "open", Protocol: p.String(), Key: k.openText, Token: token, Footer: footer, Assertion: assertion})
	if a.Error != "" {
		return "", "", peerError(a.Error)
	}
	return string(a.Payload), a.Footer, nil
}

type peerError string

func (e peerError) Error() string { return string(e) }

func TestJavaScript(t *testing.T) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: the JavaScript implementations were not tried", program)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "peer.mjs"} {
		text, err := os.ReadFile(filepath.Join("js", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	ctx := t.Context()
	install := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	install.WaitDelay = time.Minute // a child of npm may hold the pipe after it
	out, err := install.CombinedOutput()
	require.NoError(t, err, "npm ci: %s", out)

	cmd := exec.CommandContext(ctx, "node", "peer.mjs")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait(), stderr.String())
	}()
	reader := bufio.NewReader(stdout)
	for _, l := range []struct {
		name      string
		protocols []paseto.Protocol
	}{
		{"paseto@4", []paseto.Protocol{paseto.V4Public, paseto.V2Public}},
		{"paseto@3", []paseto.Protocol{paseto.V4Public, paseto.V2Public}},
		{"paseto-ts", []paseto.Protocol{paseto.V4Local, paseto.V4Public}},
	} {
		for _, p := range l.protocols {
			t.Run(l.name+"/"+p.String(), func(t *testing.T) { bothWays(t, p, node{l.name, in, reader}) })
		}
	}
}
