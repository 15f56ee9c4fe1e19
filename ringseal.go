package fob

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
)

// sealKeys are the keys under which the ring is kept: one per version, and one
// for the list as a whole.
type sealKeys struct {
	v4, v2 paseto.SymmetricKey
	list   []byte
}

func newSealKeys(key []byte) (*sealKeys, error) {
	part := func(name string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("fob token ring " + name))
		return mac.Sum(nil)
	}
	v4, err := paseto.SymmetricKeyFrom(paseto.V4Local, part("k4"))
	if err != nil {
		return nil, fmt.Errorf("fob: seal key: %w", err)
	}
	v2, err := paseto.SymmetricKeyFrom(paseto.V2Local, part("k2"))
	if err != nil {
		return nil, fmt.Errorf("fob: seal key: %w", err)
	}
	return &sealKeys{v4: v4, v2: v2, list: part("list")}, nil
}

func (s *sealKeys) of(p paseto.Protocol) paseto.SymmetricKey {
	if p.Version() == 2 {
		return s.v2
	}
	return s.v4
}

func (s *sealKeys) sum(ref record.ID, text string) string {
	mac := hmac.New(sha256.New, s.list)
	mac.Write(ref[:])
	mac.Write([]byte(text))
	return string(mac.Sum(nil))
}

// encode writes the ring as lines of protocol, times and the wrapped key.
func (s *sealKeys) encode(rec *backend.Record, keys []ringKey) error {
	var text strings.Builder
	for _, k := range keys {
		var wrapped string
		var err error
		switch sealer := k.sealer.(type) {
		case paseto.SymmetricKey:
			wrapped, err = sealer.Wrap(s.of(k.protocol))
		case paseto.SecretKey:
			wrapped, err = sealer.Wrap(s.of(k.protocol))
		default:
			err = ErrInvalid
		}
		if err != nil {
			return fmt.Errorf("fob: seal token key: %w", err)
		}
		fmt.Fprintf(&text, "%d %d %d %s\n", k.protocol, k.activeAt, k.retireAt, wrapped)
	}
	w := record.NewBody()
	w.Text(record.FieldRing, text.String())
	w.Text(record.FieldRingSum, s.sum(rec.ID, text.String()))
	w.Seal(rec)
	return nil
}

// decode reads what encode wrote. A ring that was made under another SealKey is
// ErrSealKey.
func (s *sealKeys) decode(rec *backend.Record) (*ring, error) {
	r, err := record.Open(rec, record.Ring)
	if err != nil {
		return nil, err
	}
	var text, sum string
	for field, v := range r.Fields {
		switch field {
		case record.FieldRing:
			text = v
		case record.FieldRingSum:
			sum = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || text == "" {
		return nil, record.Corrupt(rec, "fields")
	}
	if !hmac.Equal([]byte(sum), []byte(s.sum(rec.ID, text))) {
		return nil, ErrSealKey
	}
	var keys []ringKey
	for line := range strings.Lines(text) {
		k, err := s.decodeLine(strings.Fields(line))
		if errors.Is(err, paseto.ErrUnavailable) {
			return nil, fmt.Errorf("fob: token keys: %w", err)
		}
		if err != nil || len(keys) == maxRing {
			return nil, record.Corrupt(rec, "token key")
		}
		keys = append(keys, k)
	}
	return newRing(keys, rec.Version), nil
}

func (s *sealKeys) decodeLine(parts []string) (ringKey, error) {
	if len(parts) != 4 {
		return ringKey{}, ErrCorrupt
	}
	p, err1 := strconv.ParseUint(parts[0], 10, 8)
	activeAt, err2 := strconv.ParseInt(parts[1], 10, 64)
	retireAt, err3 := strconv.ParseInt(parts[2], 10, 64)
	k := ringKey{protocol: paseto.Protocol(p), activeAt: activeAt, retireAt: retireAt}
	if err := errors.Join(err1, err2, err3); err != nil || !k.protocol.Valid() {
		return ringKey{}, ErrCorrupt
	}
	if k.protocol.Local() {
		sym, err := paseto.UnwrapSymmetricKey(k.protocol, parts[3], s.of(k.protocol))
		if err != nil {
			return ringKey{}, err
		}
		k.sealer, k.opener = sym, sym
	} else {
		sec, err := paseto.UnwrapSecretKey(k.protocol, parts[3], s.of(k.protocol))
		if err != nil {
			return ringKey{}, err
		}
		k.sealer, k.opener = sec, sec.Public()
	}
	k.id = k.opener.ID()
	return k, nil
}
