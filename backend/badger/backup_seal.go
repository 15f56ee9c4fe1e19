package badger

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fobkit/fob/backend"
	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed stream is a header (magic, 32 random bytes) and chunks, each a
// length and a ChaCha20-Poly1305 box of up to 64 KiB. The key of a stream is
// HKDF-SHA-256 (RFC 5869) of the backup key over its header, so a stream has its
// own, and the header is bound to it. The nonce is the number of the chunk, with
// a mark on the last: none can be changed, moved, repeated or left out (the
// STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). The last
// chunk is empty.
const (
	backupMagic = "fob badger backup 1\n"
	saltLen     = 32
	headerLen   = len(backupMagic) + saltLen
	chunkLen    = 64 << 10
)

func (k BackupKey) check() error {
	if len(k) != chacha20poly1305.KeySize {
		return fmt.Errorf("badger: %w: backup key of %d bytes, want %d", backend.ErrInvalid, len(k), chacha20poly1305.KeySize)
	}
	return nil
}

func streamCipher(key BackupKey, header []byte) (cipher.AEAD, error) {
	if err := key.check(); err != nil {
		return nil, err
	}
	k, err := hkdf.Key(sha256.New, key, header, "fob badger backup", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(k)
}

func chunkNonce(n uint64, last bool) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSize)
	binary.BigEndian.PutUint64(nonce, n)
	if last {
		nonce[len(nonce)-1] = 1
	}
	return nonce
}

type sealer struct {
	w    io.Writer
	aead cipher.AEAD
	n    uint64
	buf  []byte
}

func newSealer(w io.Writer, key BackupKey) (*sealer, error) {
	header := make([]byte, headerLen)
	copy(header, backupMagic)
	_, _ = rand.Read(header[len(backupMagic):]) // never returns an error
	aead, err := streamCipher(key, header)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, fmt.Errorf("badger: backup: %w", err)
	}
	return &sealer{w: w, aead: aead, buf: make([]byte, 0, chunkLen)}, nil
}

func (s *sealer) Write(b []byte) (int, error) {
	written := len(b)
	for len(b) > 0 {
		n := min(len(b), chunkLen-len(s.buf))
		s.buf, b = append(s.buf, b[:n]...), b[n:]
		if len(s.buf) == chunkLen {
			if err := s.chunk(s.buf, false); err != nil {
				return 0, err
			}
			s.buf = s.buf[:0]
		}
	}
	return written, nil
}

func (s *sealer) chunk(text []byte, last bool) error {
	box := make([]byte, 4, 4+len(text)+s.aead.Overhead())
	binary.BigEndian.PutUint32(box, uint32(len(text)+s.aead.Overhead()))
	_, err := s.w.Write(s.aead.Seal(box, chunkNonce(s.n, last), text, nil))
	s.n++
	return err
}

func (s *sealer) finish() error {
	if len(s.buf) > 0 {
		if err := s.chunk(s.buf, false); err != nil {
			return err
		}
	}
	return s.chunk(nil, true)
}

// opener reads a sealed stream. It returns io.EOF only after the last chunk.
type opener struct {
	r    io.Reader
	aead cipher.AEAD
	n    uint64
	buf  []byte
	done bool
}

func newOpener(r io.Reader, key BackupKey) (*opener, error) {
	header := make([]byte, headerLen)
	if _, err := io.ReadFull(r, header); err != nil || string(header[:len(backupMagic)]) != backupMagic {
		return nil, fmt.Errorf("%w: no such stream", errors.Join(ErrBackup, err))
	}
	aead, err := streamCipher(key, header)
	if err != nil {
		return nil, err
	}
	return &opener{r: r, aead: aead}, nil
}

func (o *opener) Read(b []byte) (int, error) {
	for len(o.buf) == 0 {
		if o.done {
			return 0, io.EOF
		}
		if err := o.chunk(); err != nil {
			return 0, err
		}
	}
	n := copy(b, o.buf)
	o.buf = o.buf[n:]
	return n, nil
}

func (o *opener) chunk() error {
	var size [4]byte
	if _, err := io.ReadFull(o.r, size[:]); err != nil {
		return fmt.Errorf("%w: cut", errors.Join(ErrBackup, err))
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if n < o.aead.Overhead() || n > chunkLen+o.aead.Overhead() {
		return fmt.Errorf("%w: chunk of %d bytes", ErrBackup, n)
	}
	box := make([]byte, n)
	if _, err := io.ReadFull(o.r, box); err != nil {
		return fmt.Errorf("%w: cut", errors.Join(ErrBackup, err))
	}
	if text, err := o.aead.Open(nil, chunkNonce(o.n, false), box, nil); err == nil {
		o.buf = text
		o.n++
		return nil
	}
	text, err := o.aead.Open(nil, chunkNonce(o.n, true), box, nil)
	if err != nil || len(text) != 0 {
		return fmt.Errorf("%w: changed, or sealed under another key", ErrBackup)
	}
	o.done = true
	return nil
}

// end checks that the stream was read to its end.
func (o *opener) end() error {
	if n, err := o.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: not read to its end", errors.Join(ErrBackup, err))
	}
	if n, _ := o.r.Read(make([]byte, 1)); n != 0 {
		return fmt.Errorf("%w: something follows its end", ErrBackup)
	}
	return nil
}
