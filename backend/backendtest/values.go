package backendtest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
)

func timeChecks() []check {
	return []check{
		{2, "every millisecond is kept", nil, checkTimes},
		{15, "lists tell milliseconds apart", []Capability{Lister}, checkTimeOrder},
		{15, "an expiry is before an instant or it is not", []Capability{Lister}, checkExpiryEdge},
		{17, "instants in every zone, to the nanosecond", []Capability{Purger}, checkPurgeZones},
	}
}

var instants = []int64{
	0, 1, 999, 1000, 1001, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32 + 1, born, born + 1,
	time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli(), 1<<53 + 1, math.MaxInt64 - 1, math.MaxInt64,
}

func checkTimes(p *probe) {
	var recs []backend.Record
	for i, at := range instants {
		rec := sample(i)
		rec.Created, rec.Expires, rec.PurgeAt = at, instants[len(instants)-1-i], instants[(i+3)%len(instants)]
		recs = append(recs, p.create(rec))
	}
	for i, rec := range recs {
		p.holds(rec)
		rec.Expires, rec.PurgeAt = rec.PurgeAt, rec.Expires
		recs[i] = p.overwrite(rec)
		p.holds(recs[i])
	}
}

func checkTimeOrder(p *probe) {
	want := slices.Sorted(slices.Values(instants))
	for i := range instants {
		rec := sample(i)
		rec.Created = instants[len(instants)-1-i]
		p.create(rec)
	}
	for _, newest := range []bool{false, true} {
		var got []int64
		for _, rec := range p.walk(backend.Query{Kind: 1, Newest: newest, Limit: 3}) {
			got = append(got, rec.Created)
		}
		if !slices.Equal(got, want) {
			p.broken("the records of a list (the newest first: %t) were created at %v, want the times %v", newest, got, want)
		}
		slices.Reverse(want)
	}
}

func checkExpiryEdge(p *probe) {
	var expiring []int64
	for i, at := range instants {
		rec := sample(i)
		rec.Expires = at
		p.create(rec)
		if at > 0 {
			expiring = append(expiring, at)
		}
	}
	for _, edge := range expiring {
		for _, before := range []int64{edge - 1, edge, edge + 1} {
			if before <= 0 {
				continue // not an expiry, or past the end of time
			}
			var want, got []int64
			for _, at := range expiring {
				if at < before {
					want = append(want, at)
				}
			}
			for _, rec := range p.walk(backend.Query{Kind: 1, ExpiresBefore: before, Limit: 4}) {
				got = append(got, rec.Expires)
			}
			if !slices.Equal(got, want) {
				p.broken("the list of what expires before %d has the expiries %v, want %v", before, got, want)
			}
		}
	}
}

func checkPurgeZones(p *probe) {
	due := int64(born) // a whole number of milliseconds
	zones := []*time.Location{time.UTC, time.FixedZone("east", 14*3600), time.FixedZone("west", -11*3600-1800)}
	for i, zone := range zones {
		rec := sample(i)
		rec.PurgeAt = due
		rec = p.create(rec)
		for _, before := range []time.Time{time.UnixMilli(due).Add(-1), time.UnixMilli(due - 1), time.Unix(0, 0), {}} {
			p.purges(before.In(zone), 10, 0)
			p.holds(rec)
		}
		p.purges(time.UnixMilli(due).In(zone), 10, 1)
		p.lacks(rec.ID)
	}
	far := sample(10)
	far.PurgeAt = math.MaxInt64
	far = p.create(far)
	p.purges(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), 10, 0)
	p.holds(far)
}

func identifierChecks() []check {
	return []check{
		{2, "IDs are equal only byte for byte", nil, checkIDs},
		{2, "owners are kept byte for byte", nil, checkOwners},
		{15, "owners are told apart byte for byte", []Capability{Lister}, checkOwnerLists},
		{15, "parents are told apart byte for byte", []Capability{Lister}, checkParentLists},
		{15, "kinds are told apart", []Capability{Lister}, checkKindLists},
		{16, "usage tells IDs apart", []Capability{UsageRecorder}, checkUsageIDs},
	}
}

// hardIDs differ in one bit, in case, or in what text would end at.
func hardIDs() []backend.ID {
	list := []backend.ID{
		{15: 1}, {0: 1}, {14: 1}, {0: 0xff, 15: 0xff},
		backend.ID([]byte("abcdefghijklmnop")), backend.ID([]byte("ABCDEFGHIJKLMNOP")), backend.ID([]byte("abcdefghijklmnoP")),
		backend.ID([]byte("abc\x00efghijklmnop")), backend.ID([]byte("abc\x00EFGHIJKLMNOP")), backend.ID([]byte("abc/efghijklmnop")),
		backend.ID([]byte("abc:efghijklmno ")), backend.ID([]byte("abc%efghijklmno_")), backend.ID([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
	}
	for bit := range 128 {
		id := idOf(7)
		id[bit/8] ^= 1 << (bit % 8)
		list = append(list, id)
	}
	return list
}

func checkIDs(p *probe) {
	all := hardIDs()
	var recs []backend.Record
	for i, id := range all {
		p.lacks(id)
		rec := sample(i)
		rec.ID = id
		recs = append(recs, p.create(rec))
	}
	for _, rec := range recs {
		p.holds(rec)
	}
	for _, rec := range recs {
		p.remove(rec)
		p.lacks(rec.ID)
	}
}

// hardOwners are pairwise different, and look alike.
func hardOwners() []string {
	long := strings.Repeat("o", backend.MaxOwner-1)
	return []string{
		"a", "A", "aa", "a ", " a", "a\x00", "\x00a", "a\x00b", "a\x00\x00", "\x00", "\x00\x01", "\x01", "\xff", "\xff\xff", "a\xff",
		"a/b", "a:b", "a|b", "a,b", "a%", "a_", "%", "_", "*", "a*", "a\\", "a\\x00", "'", "\"", ";", "a\nb", "a\r\nb", "\t",
		"\u00e9", "e\u0301", "\u017f", "s", "S", "K", "\u212a", "\u0131", "i", "I", "\u0130", "\u00df", "ss", "\u200b", "\ufeff", "\ufffd", "\xc3", "\xc3\x28",
		long, long + "a", long + "b", long[1:] + "a",
	}
}

func checkOwners(p *probe) {
	var recs []backend.Record
	for i, owner := range hardOwners() {
		rec := sample(i)
		rec.Owner = owner
		recs = append(recs, p.create(rec))
	}
	for _, rec := range recs {
		p.holds(rec)
	}
}

func checkOwnerLists(p *probe) {
	owners := append(hardOwners(), "")
	for i, owner := range owners {
		for n := range 2 {
			rec := sample(2*i + n)
			rec.Owner, rec.Created = owner, born+int64(n)
			p.create(rec)
		}
	}
	for i, owner := range owners {
		if owner == "" {
			continue // not an index
		}
		p.lists(backend.Query{Kind: 1, Owner: owner, Limit: 1}, idOf(2*i), idOf(2*i+1))
	}
}

func checkParentLists(p *probe) {
	parents := hardIDs()
	for i, parent := range parents {
		rec := sample(i)
		rec.Parent = parent
		p.create(rec)
	}
	p.create(sample(len(parents))) // none
	for i, parent := range parents {
		p.lists(backend.Query{Kind: 1, Parent: parent}, idOf(i))
	}
}

func checkKindLists(p *probe) {
	kinds := []backend.Kind{1, 2, 127, 128, 254, 255}
	for i, kind := range kinds {
		rec := sample(i)
		rec.Kind, rec.Parent, rec.Expires = kind, idOf(1000), born
		p.create(rec)
	}
	for i, kind := range kinds {
		p.lists(backend.Query{Kind: kind}, idOf(i))
		p.lists(backend.Query{Kind: kind, Owner: "owner"}, idOf(i))
		p.lists(backend.Query{Kind: kind, Parent: idOf(1000)}, idOf(i))
		p.lists(backend.Query{Kind: kind, ExpiresBefore: born + 1}, idOf(i))
	}
	p.lists(backend.Query{Kind: 3})
}

func checkUsageIDs(p *probe) {
	u := capability[backend.UsageRecorder](p)
	all := hardIDs()
	var batch []backend.Usage
	for i, id := range all {
		batch = append(batch, backend.Usage{ID: id, N: uint64(i + 1), Last: born + int64(i)})
	}
	p.answers(u.AddUsage(p.ctx, batch), nil, "AddUsage")
	got, err := u.Usage(p.ctx, all)
	p.answers(err, nil, "Usage")
	if !slices.Equal(got, batch) {
		p.broken("usage of IDs that look alike is %v, want %v", got, batch)
	}
}

// lists fails unless q lists exactly these records, in this order.
func (p *probe) lists(q backend.Query, want ...backend.ID) {
	p.Helper()
	if got := ids(p.walk(q)); !slices.Equal(got, want) {
		p.broken("the list %s has %s, want %s", showQuery(q), showIDs(got), showIDs(want))
	}
}

func showQuery(q backend.Query) string {
	return fmt.Sprintf("{Kind:%d Owner:%.40q Parent:%x Label:%.40q ExpiresBefore:%d Newest:%t Limit:%d}", q.Kind, q.Owner, q.Parent, q.Label, q.ExpiresBefore, q.Newest, q.Limit)
}

func showIDs(list []backend.ID) string {
	if len(list) > 8 {
		return fmt.Sprintf("%d records beginning with %x", len(list), list[:8])
	}
	return fmt.Sprintf("%d records %x", len(list), list)
}
