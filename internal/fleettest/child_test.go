package fleettest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
)

// setup is what a process is started with.
type setup struct {
	Store        storeAt
	MaxStaleness time.Duration
	StaleIfError time.Duration
	RefreshGrace time.Duration
}

// request is one line to a process. Requests are answered as they finish, not in the
// order in which they came.
type request struct {
	Seq     int
	Do      string
	Text    string `json:",omitempty"`
	ID      string `json:",omitempty"`
	Subject string `json:",omitempty"`
	Account string
	Scope   string        `json:",omitempty"`
	For     time.Duration `json:",omitempty"` // of "watch": after its first answer; 0 is until it is refused
}

// reply answers one request. Instants are nanoseconds on the clock that all
// processes of the machine share.
type reply struct {
	Seq    int
	Began  int64
	Ended  int64
	Err    string        `json:",omitempty"`
	Reject bool          `json:",omitempty"` // the error is a rejection
	What   string        `json:",omitempty"` // the reason, in one word
	Text   string        `json:",omitempty"`
	Next   string        `json:",omitempty"` // a refresh secret
	ID     string        `json:",omitempty"`
	Scope  string        `json:",omitempty"`
	By     time.Duration `json:",omitempty"` // of a receipt: EverywhereBy after At
	Watch  watched       `json:",omitzero"`
	Health health        `json:",omitzero"`
}

// watched is what a process saw of one key that it verified again and again.
type watched struct {
	Accepted int   // how often it was accepted
	Last     int64 // when the last verification that was accepted began
	Refused  int64 // when the first one after it that was refused for good began; 0: none
	Unsure   int   // how often it could not be checked
}

// forEver is the request that has many replies: refreshes until the process is killed.
// "watch" has two: one when the key was accepted, or refused, for the first time, and
// one at the end.
const forEver = "refresh for ever"

type health struct {
	Following bool
	Failures  int
	Events    []string // types of event so far
}

// child is a process: it opens a store, makes a Manager, and does what it is told
// until its input ends.
func child(text string) error {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store, closeStore, err := s.Store.open(ctx)
	if err != nil {
		return err
	}
	defer closeStore()
	c := &process{store: store}
	c.m, err = fob.New(store, fob.Config{
		Prefix: "acme_live", MaxStaleness: s.MaxStaleness, StaleIfError: s.StaleIfError,
		Tokens: &fob.TokenConfig{
			Issuer: "https://issuer.test", Audiences: []string{"api"}, SealKey: []byte(strings.Repeat("s", 32)), RefreshGrace: s.RefreshGrace,
		},
		Observer: fob.ObserverFunc(c.observe),
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.m.Close() }() // usage may be lost with the store
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex // guards out
	say := func(r reply) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(r) // nobody is left to tell
	}
	say(reply{})
	var wg sync.WaitGroup
	defer wg.Wait()
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			cancel()
			return nil
		}
		var req request
		if err := errors.Join(err, json.Unmarshal(line, &req)); err != nil {
			return err
		}
		wg.Go(func() {
			if req.Do == forEver {
				c.refreshForEver(ctx, req, say)
				return
			}
			r := reply{Seq: req.Seq, Began: instant()}
			if req.Do == "watch" {
				r.Watch = c.watch(ctx, req, func() { say(reply{Seq: req.Seq, Began: r.Began, Ended: instant()}) })
				r.Ended = instant()
				say(r)
				return
			}
			err := c.do(ctx, req, &r)
			r.Ended = instant()
			r.fail(err)
			say(r)
		})
	}
}

type process struct {
	store backend.Store
	m     *fob.Manager

	mu     sync.Mutex // guards events
	events []string
}

func (c *process) observe(_ context.Context, e fob.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.events); n > 0 && c.events[n-1] == e.Type.String() {
		return
	}
	c.events = append(c.events, e.Type.String())
}

func (r *reply) fail(err error) {
	if err == nil {
		r.What = "ok"
		return
	}
	r.Err, r.Reject = err.Error(), errors.Is(err, fob.ErrRejected)
	for word, is := range map[string]error{
		"revoked": fob.ErrRevoked, "disabled": fob.ErrDisabled, "perhaps": fob.ErrIndeterminate, "not found": fob.ErrNotFound, "expired": fob.ErrExpired,
	} {
		if errors.Is(err, is) {
			r.What = word
		}
	}
}

func (c *process) do(ctx context.Context, req request, r *reply) error {
	if req.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.For)
		defer cancel()
	}
	id, err := fob.ParseID(req.ID)
	if req.ID != "" && err != nil {
		return err
	}
	switch req.Do {
	case "issue":
		if req.Subject == "" {
			req.Subject = "app-1"
		}
		secret, key, err := c.m.IssueKey(ctx, fob.KeySpec{Subject: subjectOf(req), Scopes: fob.Scopes{"scope:0"}})
		if err != nil {
			return err
		}
		r.Text, r.ID = secret.Reveal(), key.ID().String()
	case "verify", "fresh":
		v := fob.Verifier(c.m)
		if req.Do == "fresh" {
			v = c.m.Fresh()
		}
		cred, err := v.Verify(ctx, req.Text)
		if err != nil {
			return err
		}
		r.Scope, r.ID = cred.Scopes().String(), cred.ID().String()
	case "revoke", "everywhere", "revoke subject", "revoke tokens":
		var receipt fob.Receipt
		var err error
		switch req.Do {
		case "revoke":
			receipt, err = c.m.Revoke(ctx, id, "")
		case "everywhere":
			if receipt, err = c.m.Revoke(ctx, id, ""); err == nil {
				err = receipt.Wait(ctx)
			}
		case "revoke subject":
			receipt, err = c.m.Revoke(ctx, subjectOf(req), "")
		default:
			receipt, err = c.m.Revoke(ctx, fob.AllTokens(time.Time{}), "")
		}
		r.By = receipt.EverywhereBy.Sub(receipt.At)
		return err
	case "disable":
		return c.m.Disable(ctx, targetOf(req, id), "")
	case "enable":
		return c.m.Enable(ctx, targetOf(req, id))
	case "scope":
		_, err := c.m.UpdateKey(ctx, id, fob.KeyUpdate{Scopes: &fob.Scopes{fob.Scope(req.Scope)}})
		return err
	case "exchange":
		issued, err := c.m.ExchangeKey(ctx, req.Text, fob.TokenSpec{Audience: "api", Refreshable: true})
		if err != nil {
			return err
		}
		r.Text, r.Next, r.ID = issued.Access.Reveal(), issued.Refresh.Reveal(), issued.Token.Session().String()
	case "refresh":
		issued, err := c.m.Refresh(ctx, req.Text)
		if err != nil {
			return err
		}
		r.Text, r.Next = issued.Access.Reveal(), issued.Refresh.Reveal()
	case "health":
		h := c.m.Health()
		c.mu.Lock()
		r.Health = health{h.Following, h.Failures, append([]string(nil), c.events...)}
		c.mu.Unlock()
	default:
		return fmt.Errorf("what is %q?", req.Do)
	}
	return nil
}

// watch verifies a key until it has been refused for good, or for as long as it was
// asked to, which begins with the first answer: then it calls begun.
func (c *process) watch(ctx context.Context, req request, begun func()) watched {
	var w watched
	end := int64(math.MaxInt64)
	for first := true; ctx.Err() == nil; time.Sleep(200 * time.Microsecond) {
		began := instant()
		if began > end {
			return w
		}
		if first && w.Accepted+int(w.Refused) > 0 {
			first = false
			if req.For > 0 {
				end = began + int64(req.For)
			}
			begun()
		}
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err := c.m.Verify(short, req.Text)
		cancel()
		switch {
		case err == nil:
			w.Accepted++
			w.Last, w.Refused = began, 0
		case errors.Is(err, fob.ErrRejected):
			if w.Refused == 0 {
				w.Refused = began
			}
			if req.For == 0 {
				if first {
					begun()
				}
				return w
			}
		default:
			w.Unsure++
		}
	}
	return w
}

// refreshForEver refreshes a family until the process is killed, and says each secret
// that it was given.
func (c *process) refreshForEver(ctx context.Context, req request, say func(reply)) {
	secret := req.Text
	for ctx.Err() == nil {
		r := reply{Seq: req.Seq, Began: instant()}
		issued, err := c.m.Refresh(ctx, secret)
		r.Ended = instant()
		r.fail(err)
		if err == nil {
			secret = issued.Refresh.Reveal()
			r.Text, r.Next = issued.Access.Reveal(), secret
		}
		say(r)
		if r.Reject {
			return
		}
	}
}

// subjectOf is the subject that a request names, in the account that it names.
func subjectOf(req request) fob.Subject { return fob.App(req.Subject).In(fob.Account(req.Account)) }

// targetOf is what a request is about: a key or a session, a subject, or an account.
func targetOf(req request, id fob.ID) fob.Target {
	switch {
	case !id.IsZero():
		return id
	case req.Subject != "":
		return subjectOf(req)
	}
	return fob.Account(req.Account)
}
