// Command quickstart shows the life of an API key, and of the tokens that it is exchanged
// for, on a real database and a real HTTP server, and prints it as a story:
//
//	go run ./examples/quickstart
//
// It needs nothing installed, listens on loopback only, and keeps its database
// in a temporary directory that it removes, or in the one given with -dir.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/httpauth"
)

func main() {
	dir := flag.String("dir", "", "keep the database in this directory instead of a temporary one")
	after := flag.Bool("after-restart", false, "tell the end of the story; used by the program itself")
	flag.Parse()
	tell := story
	if *after {
		tell = afterRestart
	}
	if err := tell(context.Background(), os.Stdout, os.Stdin, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// service is an application that embeds fob: a database, a Manager, and an HTTP
// API that lists and cancels orders.
type service struct {
	store  *badger.Store
	keys   *fob.Manager
	server *http.Server
	url    string
	served chan error
}

func start(dir string) (*service, error) {
	store, err := badger.Open(dir, badger.Options{})
	if err != nil {
		return nil, err
	}
	seal, err := sealKey(dir)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	keys, err := fob.New(store, fob.Config{
		Prefix: "acme_live", OtherPrefixes: []string{"acme_test"},
		Tokens: &fob.TokenConfig{Issuer: "acme", Audiences: []string{"acme-api"}, SealKey: seal, RefreshGrace: -1},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	mux := http.NewServeMux()
	for route, scope := range map[string]fob.Scope{"GET /orders": "orders:read", "DELETE /orders": "orders:cancel"} {
		guard, err := httpauth.Require(keys, httpauth.Options{Scopes: fob.Scopes{scope}, Realm: "acme"})
		if err != nil {
			return nil, errors.Join(err, keys.Close(), store.Close())
		}
		mux.Handle(route, guard(http.HandlerFunc(orders)))
	}
	guard, err := httpauth.Require(keys, httpauth.Options{Action: "read", Resource: orderOf, Realm: "acme"})
	if err != nil {
		return nil, errors.Join(err, keys.Close(), store.Close())
	}
	mux.Handle("GET /orders/{id}", guard(http.HandlerFunc(order)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, keys.Close(), store.Close())
	}
	s := &service{
		store:  store,
		keys:   keys,
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second},
		url:    "http://" + listener.Addr().String(),
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

func orders(w http.ResponseWriter, r *http.Request) {
	cred, _ := fob.FromContext(r.Context())
	fmt.Fprintf(w, "3 orders of %s\n", cred.Subject().Name)
}

// stop ends the parts of the service in the reverse order of their start.
func (s *service) stop(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, s.keys.Close(), s.store.Close())
}

// teller prints the story and makes its requests.
type teller struct {
	out io.Writer
	*service
	err error // the first thing that went wrong
}

func (t *teller) say(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

// step prints a heading.
func (t *teller) step(text string) { t.say("\n%s\n", text) }

// call makes a request and prints the answer. The status of the answer must be want.
func (t *teller) call(ctx context.Context, method, path, note, key string, want int) {
	if t.err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, method, t.url+path, http.NoBody)
	if err != nil {
		t.err = err
		return
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.err = err
		return
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		t.err = err
		return
	}
	t.say("   %-6s %-10s %-31s → %s\n", method, path, note, res.Status)
	if challenge := res.Header.Get("WWW-Authenticate"); challenge != "" {
		t.say("   %53s%s\n", "", challenge)
	} else {
		t.say("   %53s%s", "", body)
	}
	if res.StatusCode != want {
		t.err = fmt.Errorf("%s %s: answered %s, want %d", method, note, res.Status, want)
	}
}

// shown returns the public part of a secret, which the story may print.
func shown(secret fob.Secret) string {
	text := secret.Reveal()
	return text[:len("acme_live_1")+16] + "…"
}

// story is everything up to the restart.
func story(ctx context.Context, out io.Writer, _ io.Reader, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "fob-quickstart-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		dir = filepath.Join(dir, "database")
	}
	svc, err := start(dir)
	if err != nil {
		return err
	}
	t := &teller{out: out, service: svc}
	t.say("A service opens its Badger database and serves its API on loopback.\n")

	t.step("1. It issues a key to app-42. The secret is shown this once; the store keeps a digest.")
	secret, key, err := svc.keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42"), Name: "nightly export", Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return errors.Join(err, svc.stop(ctx))
	}
	t.say("   key  %s\n   id   %s   (public: for logs, lists and Revoke)\n   %%v   %v\n", shown(secret), key.ID(), secret)

	t.step("2. The application calls the API.")
	t.call(ctx, "GET", "/orders", "with its key", secret.Reveal(), 200)
	t.call(ctx, "GET", "/orders", "without a key", "", 401)
	t.call(ctx, "DELETE", "/orders", "a scope it was not granted", secret.Reveal(), 403)

	t.step("3. A typing error is caught by the checksum, before any hash or database read.")
	typo := swapLast(secret.Reveal())
	t.call(ctx, "GET", "/orders", "one character wrong", typo, 401)
	_, err = svc.keys.Verify(ctx, typo)
	t.say("   the server's log says: %v\n", err)

	t.step("4. The key is rotated with an overlap of a day: both work, nobody is cut off.")
	fresh, next, err := svc.keys.RotateKey(ctx, key.ID(), fob.Rotation{Overlap: 24 * time.Hour})
	if err != nil {
		return errors.Join(err, svc.stop(ctx))
	}
	t.say("   new key  %s\n", shown(fresh))
	time.Sleep(2 * time.Millisecond) // usage has times in milliseconds, and everything so far may have taken less than one
	t.call(ctx, "GET", "/orders", "with the new key", fresh.Reveal(), 200)
	t.call(ctx, "GET", "/orders", "with the old key", secret.Reveal(), 200)
	status, err := svc.keys.RotationStatus(ctx, key.ID())
	if err != nil {
		return errors.Join(err, svc.stop(ctx))
	}
	t.say("   is the old key still used? %v: %d times\n", status.OldStillUsed, status.OldUsage.Count)

	t.step("5. The old key leaks, and is revoked: refused from the moment Revoke returns.")
	receipt, err := svc.keys.Revoke(ctx, key.ID(), "found in a public repository")
	if err != nil {
		return errors.Join(err, svc.stop(ctx))
	}
	t.call(ctx, "GET", "/orders", "with the old key", secret.Reveal(), 401)
	t.call(ctx, "GET", "/orders", "with the new key", fresh.Reveal(), 200)
	t.say("   effective here at once, in every other process within %v\n", receipt.EverywhereBy.Sub(receipt.At))

	if err := t.tokens(ctx); err != nil {
		return errors.Join(err, svc.stop(ctx))
	}

	t.step("13. The process ends. A new one opens the same directory.")
	if err := errors.Join(t.err, svc.stop(ctx)); err != nil {
		return err
	}
	return restart(ctx, out, dir, secret, fresh, key.ID(), next.ID())
}

// swapLast exchanges two neighbouring characters that differ.
func swapLast(text string) string {
	b := []byte(text)
	for i := len(b) - 1; ; i-- {
		if b[i] != b[i-1] {
			b[i], b[i-1] = b[i-1], b[i]
			return string(b)
		}
	}
}

// restart runs this program again for the end of the story. It passes secrets through a
// pipe and not on the command line, which other users of the machine can read.
func restart(ctx context.Context, out io.Writer, dir string, secret, fresh fob.Secret, old, next fob.ID) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, "-after-restart", "-dir", dir)
	cmd.Stdin = strings.NewReader(strings.Join([]string{secret.Reveal(), fresh.Reveal(), old.String(), next.String()}, "\n"))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd.Run()
}

// afterRestart is the end of the story, which another process runs.
func afterRestart(ctx context.Context, out io.Writer, in io.Reader, dir string) error {
	var lines []string
	for scan := bufio.NewScanner(in); scan.Scan(); {
		lines = append(lines, scan.Text())
	}
	if len(lines) != 4 {
		return errors.New("the story so far is missing")
	}
	svc, err := start(dir)
	if err != nil {
		return err
	}
	t := &teller{out: out, service: svc}
	t.call(ctx, "GET", "/orders", "with the revoked key", lines[0], 401)
	t.call(ctx, "GET", "/orders", "with the new key", lines[1], 200)

	t.step("14. What was used, and when: written behind, at most once a minute and key.")
	for i, name := range []string{"old key", "new key"} {
		id, err := fob.ParseID(lines[2+i])
		if err != nil {
			return errors.Join(err, svc.stop(ctx))
		}
		usage, err := svc.keys.Usage(ctx, id)
		if err != nil {
			return errors.Join(err, svc.stop(ctx))
		}
		cred, err := svc.keys.Get(ctx, id)
		if err != nil {
			return errors.Join(err, svc.stop(ctx))
		}
		t.say("   %s   %-8s  used %d times, last %s ago\n", name, cred.StatusAt(time.Now()), usage.Count, time.Since(usage.LastUsedAt).Round(time.Second))
	}
	return errors.Join(t.err, svc.stop(ctx))
}
