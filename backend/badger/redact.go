package badger

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/fobkit/fob/backend"
)

// EncryptionKey is an AES key. It does not print: fmt, slog, and the encodings of the
// standard library and of YAML show a redaction. It is a byte slice all the same, which
// what walks values by reflection can read: fmt where a struct that holds it is given to
// %p, or anything to a %w outside of Errorf; a copy in an unexported field; a diff of
// testify.
type EncryptionKey []byte

// BackupKey seals backups: 32 bytes from a cryptographic source, kept elsewhere than
// the backups. It does not print, as [EncryptionKey] does not.
type BackupKey []byte

const redaction = "[redacted]"

// errBinary is why a key has no binary form.
var errBinary = fmt.Errorf("badger: %w: a secret has no binary form", backend.ErrInvalid)

// Format writes a redaction, for every verb.
func (EncryptionKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redaction)) }

// String returns a redaction, for printers that do not know of Format.
func (EncryptionKey) String() string { return redaction }

// LogValue returns a redaction: slog prints bytes without asking Format.
func (EncryptionKey) LogValue() slog.Value { return slog.StringValue(redaction) }

// MarshalText returns a redaction; JSON, XML and YAML use it too.
func (EncryptionKey) MarshalText() ([]byte, error) { return []byte(redaction), nil }

// MarshalBinary fails: gob, which uses it, would read a redaction back as a key.
func (EncryptionKey) MarshalBinary() ([]byte, error) { return nil, errBinary }

// Format writes a redaction, for every verb.
func (BackupKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redaction)) }

// String returns a redaction, for printers that do not know of Format.
func (BackupKey) String() string { return redaction }

// LogValue returns a redaction: slog prints bytes without asking Format.
func (BackupKey) LogValue() slog.Value { return slog.StringValue(redaction) }

// MarshalText returns a redaction; JSON, XML and YAML use it too.
func (BackupKey) MarshalText() ([]byte, error) { return []byte(redaction), nil }

// MarshalBinary fails, as that of [EncryptionKey] does.
func (BackupKey) MarshalBinary() ([]byte, error) { return nil, errBinary }

// Format writes the directory, for every verb: BadgerDB's options, which s points to,
// hold the encryption key.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// String returns the directory, for printers that do not know of Format.
func (s *Store) String() string {
	if s == nil {
		return "<nil>"
	}
	return fmt.Sprintf("badger store in %q", s.dir)
}

// LogValue is as String.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Format writes o with its key redacted, for every verb: on one that it does not know, fmt
// prints the fields without asking them.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// String returns o with its key redacted, for printers that do not know of Format.
func (o Options) String() string {
	type options Options // without these methods
	return fmt.Sprintf("%+v", options(o))
}
