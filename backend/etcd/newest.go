package etcd

import (
	"context"
	"math/big"
	"time"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcd has no way to read a range from its end: asked for the last keys it reads the whole
// range, sorts it, and throws the rest away. But it counts the keys of a range in its memory
// and quickly. So the end of a list is found by counting: first in parts that are the longer
// the further they are from the end, then within the part where there are enough. What is
// read at last is a few times the page.

// A place in a list is the number that the rest of its key makes: created, and ID.
const placeLen = 8 + idLen

func placeOf(at int64, id backend.ID) *big.Int {
	return new(big.Int).SetBytes([]byte(listKey(nil, at, id)))
}

// beyond is above every place of a list.
func beyond() *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(8*placeLen)) }

// keyOf is the key of a place.
func keyOf(list []byte, p *big.Int) string {
	if p.BitLen() > 8*placeLen {
		return keyAfter(list)
	}
	b := make([]byte, len(list)+placeLen)
	copy(b, list)
	p.FillBytes(b[len(list):])
	return string(b)
}

const (
	partsFarther = 12 // parts, of which each is twice as long as the one after it
	firstPart    = 10 // the last of them is of 2^10 ms, a second, and what is later
	withinBits   = 6  // 64 parts of the same length
	// enoughPages is how many pages are read to find the last one: more would read more
	// keys, fewer would count oftener.
	enoughPages = 4
)

// farther divides what is before top: bounds at 2^step ms before a time, and so on, down
// to the start of the list.
func farther(top *big.Int, before int64, step int) []*big.Int {
	bounds := []*big.Int{top}
	for k := step; k < step+partsFarther; k++ {
		at := int64(0)
		if k < 62 {
			at = max(before-1<<k, 0)
		}
		if p := placeOf(at, backend.ID{}); p.Cmp(bounds[len(bounds)-1]) < 0 {
			bounds = append(bounds, p)
		}
	}
	return bounds
}

// within divides what is from low to high into parts of the same length.
func within(high, low *big.Int) []*big.Int {
	bounds := []*big.Int{high}
	length := new(big.Int).Sub(high, low)
	for i := int64(1<<withinBits - 1); i >= 0; i-- {
		p := new(big.Int).Mul(length, big.NewInt(i))
		p.Rsh(p, withinBits).Add(p, low)
		if p.Cmp(bounds[len(bounds)-1]) < 0 {
			bounds = append(bounds, p)
		}
	}
	return bounds
}

// counts are the requests for how many keys are between each bound and the next one, which
// is below it.
func counts(list []byte, bounds []*big.Int, revision int64) (ops []clientv3.Op) {
	for i := range len(bounds) - 1 {
		ops = append(ops, clientv3.OpGet(keyOf(list, bounds[i+1]), clientv3.WithRange(keyOf(list, bounds[i])), clientv3.WithCountOnly(), clientv3.WithRev(revision)))
	}
	return ops
}

// newest reads the last limit keys of a list before the cursor, the last one first.
func (s *Store) newest(ctx context.Context, list []byte, end string, after backend.Cursor, at int64, id backend.ID, limit int) (index, error) {
	top := beyond()
	if after == "" {
		at = time.Now().UnixMilli() // where most lists end; it decides nothing
	} else {
		top, end = placeOf(at, id), listKey(list, at, id)
	}
	want, enough := int64(limit)+1, int64(enoughPages*limit)+1
	// Most lists are short: with the first counts it is asked whether this one is.
	bounds, step := farther(top, at, firstPart), firstPart
	resp, err := s.readAll(ctx, append(counts(list, bounds, 0),
		clientv3.OpGet(string(list), clientv3.WithRange(end), clientv3.WithLimit(enough), clientv3.WithKeysOnly())))
	if err != nil {
		return index{}, err
	}
	revision := resp.Header.Revision
	last := len(resp.Responses) - 1
	if all := resp.Responses[last].GetResponseRange(); !all.More {
		return lastOf(list, all.Kvs, limit, revision)
	}
	for answers := resp.Responses[:last]; ; {
		part := 0
		for ; part < len(answers); part++ {
			n := answers[part].GetResponseRange().Count
			if n >= want {
				if n > enough {
					bounds = within(bounds[part], bounds[part+1])
					break
				}
				keys, err := s.read(ctx, keyOf(list, bounds[part+1]), clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithKeysOnly())
				if err != nil {
					return index{}, err
				}
				return lastOf(list, keys.Kvs, limit, revision)
			}
			want, enough = want-n, enough-n
		}
		if part == len(answers) {
			step += partsFarther
			bounds = farther(bounds[len(bounds)-1], at, step)
		}
		if resp, err = s.readAll(ctx, counts(list, bounds, revision)); err != nil {
			return index{}, err
		}
		answers = resp.Responses
	}
}

// lastOf is the end of a part of a list, from its last key on.
func lastOf(list []byte, kvs []*mvccpb.KeyValue, limit int, revision int64) (x index, err error) {
	x.revision, x.more = revision, len(kvs) > limit
	x.ids = make([]backend.ID, min(len(kvs), limit))
	for i := range x.ids {
		if x.last, x.ids[i], err = parseListKey(list, kvs[len(kvs)-1-i].Key); err != nil {
			return index{}, err
		}
	}
	return x, nil
}
