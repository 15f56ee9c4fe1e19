package tokenring

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
)

// SealKeys are the keys with which the ring in the store is encrypted: one for the token
// keys of each version of PASETO, and one that authenticates the list as a whole.
type SealKeys struct {
	v4, v2 paseto.SymmetricKey
	list   []byte
}

// NewSealKeys derives the keys from TokenConfig.SealKey. It fails if this process cannot
// use version 4 or version 2 of PASETO.
func NewSealKeys(key []byte) (*SealKeys, error) {
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
	return &SealKeys{v4: v4, v2: v2, list: part("list")}, nil
}

func (s *SealKeys) of(p paseto.Protocol) paseto.SymmetricKey {
	if p.Version() == 2 {
		return s.v2
	}
	return s.v4
}

func (s *SealKeys) sum(ref record.ID, text string) string {
	mac := hmac.New(sha256.New, s.list)
	mac.Write(ref[:])
	mac.Write([]byte(text))
	return string(mac.Sum(nil))
}

// Encode writes the ring into the body of rec. It has one line for each key: the protocol,
// the times and the wrapped key.
func (s *SealKeys) Encode(rec *backend.Record, keys []Key) error {
	var text strings.Builder
	for _, k := range keys {
		var wrapped string
		var err error
		switch sealer := k.Sealer.(type) {
		case paseto.SymmetricKey:
			wrapped, err = sealer.Wrap(s.of(k.Protocol))
		case paseto.SecretKey:
			wrapped, err = sealer.Wrap(s.of(k.Protocol))
		default:
			err = errs.ErrInvalid
		}
		if err != nil {
			return fmt.Errorf("fob: seal token key: %w", err)
		}
		fmt.Fprintf(&text, "%d %d %d %s\n", k.Protocol, k.ActiveAt, k.RetireAt, wrapped)
	}
	w := record.NewBody()
	w.Text(record.FieldRing, text.String())
	w.Text(record.FieldRingSum, s.sum(rec.ID, text.String()))
	w.Finish(rec)
	return nil
}

// Decode reads what Encode wrote. It fails with errs.ErrSealKey if the ring was made under
// another SealKey, and with errs.ErrCorrupt if it cannot be read.
func (s *SealKeys) Decode(rec *backend.Record) (*Ring, error) {
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
		return nil, errs.ErrSealKey
	}
	var keys []Key
	for line := range strings.Lines(text) {
		k, err := s.decodeLine(strings.Fields(line))
		if errors.Is(err, paseto.ErrUnavailable) {
			return nil, fmt.Errorf("fob: token keys: %w", err)
		}
		if err != nil || len(keys) == Max {
			return nil, record.Corrupt(rec, "token key")
		}
		keys = append(keys, k)
	}
	return New(keys, rec.Version), nil
}

func (s *SealKeys) decodeLine(parts []string) (Key, error) {
	if len(parts) != 4 {
		return Key{}, errs.ErrCorrupt
	}
	p, err1 := strconv.ParseUint(parts[0], 10, 8)
	activeAt, err2 := strconv.ParseInt(parts[1], 10, 64)
	retireAt, err3 := strconv.ParseInt(parts[2], 10, 64)
	k := Key{Protocol: paseto.Protocol(p), ActiveAt: activeAt, RetireAt: retireAt}
	if err := errors.Join(err1, err2, err3); err != nil || !k.Protocol.Valid() {
		return Key{}, errs.ErrCorrupt
	}
	if k.Protocol.Local() {
		sym, err := paseto.UnwrapSymmetricKey(k.Protocol, parts[3], s.of(k.Protocol))
		if err != nil {
			return Key{}, err
		}
		k.Sealer, k.Opener = sym, sym
	} else {
		sec, err := paseto.UnwrapSecretKey(k.Protocol, parts[3], s.of(k.Protocol))
		if err != nil {
			return Key{}, err
		}
		k.Sealer, k.Opener = sec, sec.Public()
	}
	k.ID = k.Opener.ID()
	return k, nil
}
