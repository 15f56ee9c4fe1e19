package etcdtest_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// only fails unless err is this sentinel and no other.
func only(t *testing.T, err, want error) {
	t.Helper()
	require.ErrorIs(t, err, want)
	for _, s := range []error{
		backend.ErrNotFound, backend.ErrConflict, backend.ErrIndeterminate, backend.ErrUnavailable, backend.ErrClosed, backend.ErrInvalid, backend.ErrCorrupt,
	} {
		require.Equal(t, s == want, errors.Is(err, s), "%v in (%v)", s, err)
	}
}

// An answer that is lost does not make a write unknown while there is time for
// another attempt: that one meets the first, and knows it.
func TestAWriteWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	l, cfg := behind(t, c)
	cfg.Endpoints = append(cfg.Endpoints, "http://"+c.Addr(0))
	s := open(t, client(t, cfg), etcd.Options{Timeout: 2 * time.Second})
	plain := open(t, admin, patient)
	var recs []backend.Record
	for n := range 2 {
		recs = append(recs, create(t, s, n))
	}
	// The client decides which calls go over the link: none, while it is still
	// connecting there, and all attempts of a call, while it has nothing else. So it is
	// asked until some of the answers were lost, and may be in doubt.
	passes, doubts := 0, 0
	put := func(rec backend.Record, cond backend.Cond) uint64 {
		v, err := s.Put(t.Context(), rec, cond)
		if errors.Is(err, backend.ErrIndeterminate) {
			doubts++
			got, err := plain.Get(t.Context(), rec.ID)
			require.NoError(t, err, "what it was told arrived")
			return got.Version
		}
		require.NoError(t, err)
		return v
	}
	for lost := false; !lost; passes++ {
		require.Less(t, passes, 50, "no call goes over the link")
		mute(l)
		start := time.Now()
		for i, rec := range recs {
			recs[i].Version = put(rec, backend.IfVersion(rec.Version))
			put(record(100+passes*len(recs)+i), backend.IfAbsent())
		}
		if lost = time.Since(start) > 200*time.Millisecond; !lost {
			require.NoError(t, l.Mend())
			time.Sleep(50 * time.Millisecond)
		}
	}
	require.Less(t, doubts, passes*2*len(recs), "no second attempt knew the first")
	written := func(id backend.ID) int64 {
		raw, err := admin.Get(t.Context(), "fob/r"+string(id[:]))
		require.NoError(t, err)
		require.Len(t, raw.Kvs, 1)
		return raw.Kvs[0].Version
	}
	for _, rec := range recs {
		got, err := plain.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		require.Equal(t, rec.Version, got.Version)
		require.EqualValues(t, 1+passes, written(rec.ID), "how often it was written")
	}
	for i := range passes * len(recs) {
		require.EqualValues(t, 1, written(record(100+i).ID), "how often it was written")
	}
	// A conflict is one.
	require.NoError(t, l.Mend())
	_, err := s.Put(t.Context(), recs[0], backend.IfVersion(recs[0].Version-1))
	only(t, err, backend.ErrConflict)
}

// An attempt that was applied and not answered may be overwritten before the next
// one: then neither success nor a conflict is true.
func TestAnOverwrittenAttemptIsIndeterminate(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	l, cfg := behind(t, c)
	s := open(t, client(t, cfg), patient)
	plain := open(t, client(t, c.Config()), patient)
	create(t, s, 1) // the connection is there
	mute(l)
	put := make(chan error, 1)
	go func() { _, err := s.Put(t.Context(), record(2), backend.IfAbsent()); put <- err }()
	var made backend.Record
	await.Until(t, "the write whose answer is lost", func() bool {
		var err error
		made, err = plain.Get(t.Context(), record(2).ID)
		return err == nil
	})
	mustPut(t, plain, made)
	require.NoError(t, l.Mend())
	only(t, <-put, backend.ErrIndeterminate)
}

// Without an answer, and without another member, the outcome is unknown, after
// Options.Timeout at most.
func TestAWriteThatIsNeverAnsweredIsIndeterminate(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	l, cfg := behind(t, c)
	s := open(t, client(t, cfg), etcd.Options{Timeout: time.Second})
	plain := open(t, client(t, c.Config()), patient)
	var rec backend.Record
	await.Until(t, "a write before the silence", func() bool {
		rec = record(1)
		v, err := s.Put(t.Context(), rec, backend.IfAbsent())
		rec.Version = v
		return err == nil || errors.Is(err, backend.ErrConflict)
	})
	mute(l)
	_, err := s.Put(t.Context(), record(2), backend.IfAbsent())
	only(t, err, backend.ErrIndeterminate)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller has none")
	only(t, s.AddUsage(t.Context(), []backend.Usage{{ID: rec.ID, N: 1}}), backend.ErrIndeterminate)
	await.Quick(t, "a read that is never answered", 3*time.Second, func() {
		_, err = s.Get(t.Context(), rec.ID)
		only(t, err, backend.ErrUnavailable)
	})
	await.Until(t, "the write, which was made, as it happens", func() bool {
		_, err = plain.Get(t.Context(), record(2).ID)
		return err == nil
	})
	u, err := plain.Usage(t.Context(), []backend.ID{rec.ID})
	require.NoError(t, err)
	require.Equal(t, uint64(1), u[0].N, "once, in however many attempts")
	require.NoError(t, l.Mend())
	await.Until(t, "an answer", func() bool {
		_, err := s.Get(t.Context(), rec.ID)
		return err == nil
	})
}

func TestNoSpaceIsUnavailableAndReadsGoOn(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true, QuotaBytes: 2 << 20})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	rec := create(t, s, 0)
	f := watch(t, s, nil)
	f.begun(t)
	body := bytes.Repeat([]byte("x"), backend.MaxBody)
	var err error
	last := record(1)
	for n := 1; err == nil || errors.Is(err, backend.ErrIndeterminate); n++ {
		last = record(n)
		last.Body = body
		_, err = s.Put(t.Context(), last, backend.IfAbsent())
		require.Less(t, n, 200)
	}
	only(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "database space exceeded")
	_, err = s.Get(t.Context(), last.ID)
	only(t, err, backend.ErrNotFound)
	_, err = s.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	_, err = s.List(t.Context(), backend.Query{Kind: 1})
	require.NoError(t, err)
	f.proves(t)
	// Room can be made without etcd's administrator: a Delete is not refused.
	page, err := s.List(t.Context(), backend.Query{Kind: 1, Owner: "owner 1"})
	require.NoError(t, err)
	require.NoError(t, s.Delete(t.Context(), page.Records[0].ID, page.Records[0].Version))
}

func TestAStoreBehindTLS(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true, TLS: true})
	s := open(t, client(t, c.Config()), patient)
	rec := create(t, s, 1)
	f := watch(t, s, nil)
	f.begun(t)
	rec.Version = mustPut(t, s, rec)
	f.sees(t, rec)
	f.proves(t)

	cfg := c.Config()
	cfg.TLS.Certificates = nil // no certificate of the client's
	stranger := open(t, client(t, cfg), etcd.Options{Timeout: 300 * time.Millisecond})
	_, err := stranger.Get(t.Context(), rec.ID)
	only(t, err, backend.ErrUnavailable)
	_, err = stranger.Put(t.Context(), record(2), backend.IfAbsent())
	require.Error(t, err)
	_, err = s.Get(t.Context(), record(2).ID)
	only(t, err, backend.ErrNotFound)
}

// secure switches on authentication, with a root and two users: one may read and
// write what begins with fob/, the other may read it.
func secure(t *testing.T, admin *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	end := clientv3.GetPrefixRangeEnd("fob/")
	do := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	do(admin.RoleAdd(ctx, "root"))
	do(admin.UserAdd(ctx, "root", "root"))
	do(admin.UserGrantRole(ctx, "root", "root"))
	for name, access := range map[string]clientv3.PermissionType{
		"app": clientv3.PermissionType(clientv3.PermReadWrite), "reader": clientv3.PermissionType(clientv3.PermRead),
	} {
		do(admin.RoleAdd(ctx, name))
		do(admin.RoleGrantPermission(ctx, name, "fob/", end, access))
		do(admin.UserAdd(ctx, name, name))
		do(admin.UserGrantRole(ctx, name, name))
	}
	do(admin.AuthEnable(ctx))
}

// The rights to the prefix are all that a store needs, and those to read it are
// all that a process needs which only verifies.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	secure(t, client(t, c.Config()))
	as := func(user string) *clientv3.Client {
		cfg := c.Config()
		cfg.Username, cfg.Password = user, user
		return client(t, cfg)
	}
	root := as("root")
	readers := as("reader")
	app, reader := open(t, as("app"), patient), open(t, readers, patient)

	// The reader is there first, when there is nothing yet.
	_, err := reader.Get(t.Context(), record(1).ID)
	only(t, err, backend.ErrNotFound)
	f := watch(t, reader, nil)
	f.begun(t)

	rec := record(1)
	rec.PurgeAt, rec.Expires, rec.Parent = 1, 5, record(9).ID
	v, err := app.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	rec.Version = v
	rec.Expires = 0
	rec.Version = mustPut(t, app, rec)
	require.NoError(t, app.AddUsage(t.Context(), []backend.Usage{{ID: rec.ID, N: 1}}))
	f.sees(t, rec)
	f.proves(t)
	f.lossless(t)
	for _, s := range []*etcd.Store{app, reader} {
		got, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		require.Equal(t, rec.Version, got.Version)
		page, err := s.List(t.Context(), backend.Query{Kind: 1, Parent: rec.Parent})
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		u, err := s.Usage(t.Context(), []backend.ID{rec.ID})
		require.NoError(t, err)
		require.Equal(t, uint64(1), u[0].N)
	}
	_, err = reader.Put(t.Context(), record(2), backend.IfAbsent())
	only(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "permission denied")
	only(t, reader.Delete(t.Context(), rec.ID, rec.Version), backend.ErrUnavailable)
	n, err := app.Purge(t.Context(), time.Now(), 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)

	elsewhere := open(t, as("app"), etcd.Options{Prefix: "other/", Timeout: patient.Timeout})
	_, err = elsewhere.Put(t.Context(), record(1), backend.IfAbsent())
	only(t, err, backend.ErrUnavailable)
	err = elsewhere.Watch(t.Context(), nil, func(backend.Batch) error { return nil })
	only(t, err, backend.ErrUnavailable)

	// Rights that are taken away are missed at once; the feed says so and ends.
	_, err = root.RoleRevokePermission(t.Context(), "reader", "fob/", clientv3.GetPrefixRangeEnd("fob/"))
	require.NoError(t, err)
	_, err = reader.Get(t.Context(), rec.ID)
	only(t, err, backend.ErrUnavailable)
	<-f.done
	only(t, f.err, backend.ErrUnavailable)
	require.ErrorContains(t, f.err, rpctypes.ErrPermissionDenied.Error())
}

func TestWhatIsDamagedIsCorruptAndNotMissing(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	rec, other := record(1), create(t, s, 2)
	rec.PurgeAt = 1
	v, err := s.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	rec.Version = v
	key := "fob/r" + string(rec.ID[:])
	foreign, err := admin.Get(t.Context(), "fob/r"+string(other.ID[:]))
	require.NoError(t, err)
	for name, value := range map[string]string{"empty": "", "garbage": "garbage", "another record's": string(foreign.Kvs[0].Value)} {
		put, err := admin.Put(t.Context(), key, value)
		require.NoError(t, err)
		version := uint64(put.Header.Revision)
		_, err = s.Get(t.Context(), rec.ID)
		only(t, err, backend.ErrCorrupt)
		_, err = s.List(t.Context(), backend.Query{Kind: 1})
		only(t, err, backend.ErrCorrupt)
		_, err = s.Put(t.Context(), rec, backend.IfVersion(version))
		only(t, err, backend.ErrCorrupt)
		_, err = s.Put(t.Context(), rec, backend.IfAbsent())
		require.ErrorIs(t, err, backend.ErrConflict, name)
		n, err := s.Purge(t.Context(), time.Now(), 10)
		require.NoError(t, err)
		require.Zero(t, n)
	}
}
