package paseto_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

// readVectors decodes a file of test vectors; a field that is not known fails.
func readVectors(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(into), path)
}

type tokenVectors struct {
	Name  string
	Tests []tokenVector
}

type tokenVector struct {
	Name              string
	ExpectFail        bool `json:"expect-fail"`
	Key               string
	Nonce             string
	Token             string
	Payload           *string
	Footer            string
	ImplicitAssertion string `json:"implicit-assertion"`
	PublicKey         string `json:"public-key"`
	SecretKey         string `json:"secret-key"`
	SecretKeySeed     string `json:"secret-key-seed"`
	PublicKeyPEM      string `json:"public-key-pem"`
	SecretKeyPEM      string `json:"secret-key-pem"`
}

// TestOfficialVectors runs the vectors of paseto-standard, as they travel inside
// the module aidanwoods.dev/go-paseto.
func TestOfficialVectors(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "aidanwoods.dev/go-paseto").Output()
	require.NoError(t, err)
	dir := filepath.Join(strings.TrimSpace(string(out)), "test-vectors")
	for version, protocols := range map[string][2]paseto.Protocol{
		"v2": {paseto.V2Local, paseto.V2Public},
		"v4": {paseto.V4Local, paseto.V4Public},
	} {
		var all tokenVectors
		readVectors(t, filepath.Join(dir, version+".json"), &all)
		require.Len(t, all.Tests, map[string]int{"v2": 15, "v4": 17}[version])
		for _, v := range all.Tests {
			t.Run(v.Name, func(t *testing.T) { runVector(t, v, protocols[0], protocols[1]) })
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func runVector(t *testing.T, v tokenVector, local, public paseto.Protocol) {
	implicit := v.ImplicitAssertion
	if local.Version() == 2 {
		implicit = "" // the vectors note that version 2 has none
	}
	var opener paseto.Opener
	if v.Key != "" {
		k, err := paseto.SymmetricKeyFrom(local, unhex(t, v.Key))
		require.NoError(t, err)
		opener = k
	} else {
		k, err := paseto.PublicKeyFrom(public, unhex(t, v.PublicKey))
		require.NoError(t, err)
		opener = k
	}
	token, err := paseto.Parse(v.Token)
	var payload []byte
	if err == nil {
		payload, err = opener.Open(token, implicit)
	}
	if v.ExpectFail {
		require.Error(t, err)
		return
	}
	require.NoError(t, err)
	require.Equal(t, *v.Payload, string(payload))
	require.Equal(t, v.Footer, string(token.Footer()))

	// The other way: what is deterministic, or has a nonce that can be chosen.
	if v.SecretKey != "" {
		sk, err := paseto.SecretKeyFrom(public, unhex(t, v.SecretKey))
		require.NoError(t, err)
		require.Equal(t, opener.ID(), sk.Public().ID())
		sealed, err := sk.Seal(*v.Payload, v.Footer, implicit)
		require.NoError(t, err)
		require.Equal(t, v.Token, sealed)
	} else if local == paseto.V4Local {
		require.Equal(t, v.Token, paseto.SealV4With(opener.(paseto.SymmetricKey), [32]byte(unhex(t, v.Nonce)), *v.Payload, v.Footer, implicit))
	}
}

type paserkVectors struct {
	Name  string
	Tests []paserkVector
}

type paserkVector struct {
	Name             string
	ExpectFail       bool `json:"expect-fail"`
	Comment          string
	Key              string
	Paserk           string
	Seed             string
	SecretKeySeed    string `json:"secret-key-seed"`
	PublicKey        string `json:"public-key"`
	Unwrapped        string
	WrappingKey      string `json:"wrapping-key"`
	SealingSecretKey string `json:"sealing-secret-key"`
	SealingPublicKey string `json:"sealing-public-key"`
	Unsealed         string
}

// TestPASERKVectors runs the vectors of paseto-standard for k2 and k4.
func TestPASERKVectors(t *testing.T) {
	dir := vectorFolder(t)
	for _, version := range []string{"k2", "k4"} {
		local, public := paseto.V4Local, paseto.V4Public
		if version == "k2" {
			local, public = paseto.V2Local, paseto.V2Public
		}
		for typ, run := range map[string]func(*testing.T, paserkVector) error{
			"local": func(t *testing.T, v paserkVector) error {
				k, err := paseto.ParseSymmetricKey(local, v.Paserk)
				if err == nil {
					require.Equal(t, v.Key, hex.EncodeToString(paseto.Bytes(k)))
					require.Equal(t, v.Paserk, k.PASERK())
				}
				return err
			},
			"lid": func(t *testing.T, v paserkVector) error {
				k, err := symmetric(local, v.Key)
				if err == nil {
					require.Equal(t, v.Paserk, k.ID())
					_, err = paseto.ParseID(local, v.Paserk, "pid", "lid")
				}
				return err
			},
			"public": func(t *testing.T, v paserkVector) error {
				k, err := publicKey(public, v.Key)
				if err == nil {
					require.Equal(t, v.Paserk, k.PASERK())
					again, err := paseto.ParsePublicKey(public, v.Paserk)
					require.NoError(t, err)
					require.Equal(t, k, again)
				}
				return err
			},
			"pid": func(t *testing.T, v paserkVector) error {
				k, err := publicKey(public, v.Key)
				if err == nil {
					require.Equal(t, v.Paserk, k.ID())
				}
				return err
			},
			"secret": func(t *testing.T, v paserkVector) error {
				k, err := secretKey(public, v.Key)
				if err == nil {
					require.Equal(t, v.Paserk, k.PASERK())
					require.Equal(t, v.PublicKey, hex.EncodeToString(paseto.Bytes(k.Public())))
					again, err := paseto.ParseSecretKey(public, v.Paserk)
					require.NoError(t, err)
					require.Equal(t, k, again)
				}
				return err
			},
			"sid": func(t *testing.T, v paserkVector) error {
				k, err := secretKey(public, v.Key)
				if err == nil {
					require.Equal(t, v.Paserk, k.ID())
				}
				return err
			},
			"local-wrap.pie": func(t *testing.T, v paserkVector) error {
				under, err := symmetric(local, v.WrappingKey)
				require.NoError(t, err)
				k, err := paseto.UnwrapSymmetricKey(local, v.Paserk, under)
				if err == nil {
					require.Equal(t, v.Unwrapped, hex.EncodeToString(paseto.Bytes(k)))
					again, err := k.Wrap(under)
					require.NoError(t, err)
					require.NotEqual(t, v.Paserk, again, "each time another nonce")
					back, err := paseto.UnwrapSymmetricKey(local, again, under)
					require.NoError(t, err)
					require.Equal(t, k, back)
				}
				return err
			},
			"secret-wrap.pie": func(t *testing.T, v paserkVector) error {
				under, err := symmetric(local, v.WrappingKey)
				require.NoError(t, err)
				k, err := paseto.UnwrapSecretKey(public, v.Paserk, under)
				if err == nil {
					require.Equal(t, v.Unwrapped, hex.EncodeToString(paseto.Bytes(k)))
					again, err := k.Wrap(under)
					require.NoError(t, err)
					back, err := paseto.UnwrapSecretKey(public, again, under)
					require.NoError(t, err)
					require.Equal(t, k, back)
				}
				return err
			},
			"seal": func(t *testing.T, v paserkVector) error {
				mine, err := secretKey(public, v.SealingSecretKey)
				require.NoError(t, err)
				require.Equal(t, v.SealingPublicKey, hex.EncodeToString(paseto.Bytes(mine.Public())))
				k, err := mine.Unseal(local, v.Paserk)
				if err == nil {
					require.Equal(t, v.Unsealed, hex.EncodeToString(paseto.Bytes(k)))
					again, err := k.SealTo(mine.Public())
					require.NoError(t, err)
					back, err := mine.Unseal(local, again)
					require.NoError(t, err)
					require.Equal(t, k, back)
				}
				return err
			},
		} {
			var all paserkVectors
			readVectors(t, filepath.Join(dir, fmt.Sprintf("%s.%s.json", version, typ)), &all)
			require.GreaterOrEqual(t, len(all.Tests), 4)
			for _, v := range all.Tests {
				t.Run(v.Name, func(t *testing.T) {
					err := run(t, v)
					if v.ExpectFail {
						require.Error(t, err, v.Comment)
						return
					}
					require.NoError(t, err)
				})
			}
		}
	}
}

// The keys of vectors are in hexadecimal; those that must fail may be anything.
func symmetric(p paseto.Protocol, text string) (paseto.SymmetricKey, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return paseto.SymmetricKey{}, err
	}
	return paseto.SymmetricKeyFrom(p, b)
}

func publicKey(p paseto.Protocol, text string) (paseto.PublicKey, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return paseto.PublicKey{}, err
	}
	return paseto.PublicKeyFrom(p, b)
}

func secretKey(p paseto.Protocol, text string) (paseto.SecretKey, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return paseto.SecretKey{}, err
	}
	return paseto.SecretKeyFrom(p, b)
}

// vectorFolder is where the project keeps vectors that are not its own.
func vectorFolder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../shared/vectors/paserk")
	require.NoError(t, err)
	if from := os.Getenv("FOB_VECTORS"); from != "" {
		dir = filepath.Join(from, "paserk")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the PASERK vectors (paseto-standard/test-vectors, folder PASERK) are not here; FOB_VECTORS names the folder above")
	}
	return dir
}
