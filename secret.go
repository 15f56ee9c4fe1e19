package fob

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/pepper"
)

// redacted is what every printed form of a Secret or a Digest shows.
const redacted = "[redacted]"

// errNoBinary is the error of MarshalBinary of every type that holds a secret. Without
// that method encoding/gob would write every exported field, because it does not call
// MarshalText.
var errNoBinary = fmt.Errorf("%w: what holds a secret has no binary form", ErrInvalid)

// Secret is a credential's secret text: what the caller hands to its user once, when the
// credential is issued. Reveal is the one way to read it. A Secret redacts itself in
// every printed form (String, all fmt verbs, JSON, XML, YAML, text and slog), also inside
// other structs, and has no binary form (gob is an error). Printers that read memory by
// reflection, as the diffs of test libraries do, find an address. The zero Secret is
// empty. A Secret is immutable and safe for concurrent use. == and reflect.DeepEqual are
// true only for copies of one Secret: to compare two, compare what they reveal.
type Secret struct {
	// fmt prints the unexported fields of structs without calling their methods, and shows
	// an address for a pointer below the top level. Other printers follow pointers, but
	// none can look into a function. The pointer keeps a Secret comparable.
	text *sealedText
}

// sealedText is a text that cannot be seen by reflection.
type sealedText struct{ reveal func() string }

func newSecret(text string) Secret {
	return Secret{text: &sealedText{func() string { return text }}}
}

// Reveal returns the secret itself. To find every place where a program lets a secret
// out, search for this name.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text.reveal()
}

// IsZero reports whether s holds nothing.
func (s Secret) IsZero() bool { return s.text == nil }

// String returns a redaction.
func (s Secret) String() string { return redacted }

// GoString returns a redaction.
func (s Secret) GoString() string { return "fob.Secret(" + redacted + ")" }

// Format writes a redaction for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns a redaction; JSON, XML and YAML use it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalBinary fails: a redaction that another program decodes would be a wrong secret.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// LogValue returns a redaction.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// newPeppers moves the peppers out of m.cfg into the keeper that makes digests.
func (m *Manager) newPeppers() *pepper.Keeper {
	cfg := pepper.KeeperConfig{Store: m.records, Clock: &m.clock, Problem: m.problem}
	if m.cfg.Imported != nil {
		cfg.Imported = m.cfg.Imported.Digest
	}
	keeper := pepper.NewKeeper(cfg)
	for i, p := range m.cfg.Peppers {
		keeper.Add(p.ID, p.Key)
		m.cfg.Peppers[i].Key = nil
	}
	return keeper
}

// digest sets the digest that k stores: that of secret under the active pepper.
func (m *Manager) digest(k *keystate.State, secret []byte) {
	k.SetDigest(m.peppers.Digest(secret))
}
