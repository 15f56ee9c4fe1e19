package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// built is the program as a user builds it, made once for all tests.
var built struct {
	exe string
	out []byte
	err error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fob-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.exe = filepath.Join(dir, "program")
	built.out, built.err = exec.Command("go", "build", "-o", built.exe, ".").CombinedOutput()
	code := m.Run()
	_ = os.RemoveAll(dir) // a temporary folder
	os.Exit(code)
}

// service is the program, running.
type service struct {
	t             *testing.T
	url, operator string
	stop          func() (log string)
}

func start(t *testing.T, store string) *service {
	t.Helper()
	require.NoError(t, built.err, "%s", built.out)
	flags := []string{"-store", store, "-data", filepath.Join(t.TempDir(), "data"), "-addr", "127.0.0.1:0"}
	operator, err := exec.Command(built.exe, append(flags, "-init")...).Output()
	require.NoError(t, err)
	cmd, log := exec.Command(built.exe, flags...), &bytes.Buffer{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stopped := false
	s := &service{t: t, operator: strings.TrimSpace(string(operator)), stop: func() string {
		if !stopped {
			stopped = true
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait(), "%s", log)
		}
		return log.String()
	}}
	t.Cleanup(func() { s.stop() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "%s", log)
	_, s.url, _ = strings.Cut(strings.TrimSpace(line), "serving on ")
	return s
}

// call makes a request and returns the answer, whose status must be want.
func (s *service) call(credential, method, path, body string, want int) map[string]any {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(s.t, errors.Join(err, res.Body.Close()))
	require.Equal(s.t, want, res.StatusCode, "%s %s: %s", method, path, text)
	var answer map[string]any
	if json.Unmarshal(text, &answer) != nil {
		return map[string]any{"text": string(text)}
	}
	return answer
}

// user adds a user and logs in.
func (s *service) user(tenant, name, role string) (access, refresh string) {
	s.t.Helper()
	s.call(s.operator, "PUT", "/tenants/"+tenant+"/users/"+name, `{"role":"`+role+`","password":"correct horse"}`, 200)
	return s.login(tenant, name)
}

func (s *service) login(tenant, name string) (access, refresh string) {
	s.t.Helper()
	got := s.call("", "POST", "/login", `{"tenant":"`+tenant+`","name":"`+name+`","password":"correct horse","device":"laptop"}`, 200)
	return got["access"].(string), got["refresh"].(string)
}

// key makes a key.
func (s *service) key(caller, body string) (secret, id string) {
	s.t.Helper()
	got := s.call(caller, "POST", "/keys", body, 200)
	return got["secret"].(string), got["key"].(map[string]any)["id"].(string)
}

// on runs a test on Badger and on PostgreSQL.
func on(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("badger", func(t *testing.T) { test(t, start(t, "")) })
	t.Run("postgres", func(t *testing.T) {
		server, err := pgtest.Start(t.Context(), pgtest.Config{})
		if errors.Is(err, pgtest.ErrNoServer) {
			t.Skip(err)
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, server.Close()) })
		test(t, start(t, "postgres:"+server.URL("postgres")))
	})
}

func TestTheStory(t *testing.T) {
	on(t, func(t *testing.T, s *service) {
		ann, annRefresh := s.user("acme", "ann", "admin")
		bob, bobRefresh := s.user("acme", "bob", "member")
		require.Contains(t, s.call(bob, "GET", "/orders", "", 200)["text"], "orders of acme")
		s.call("", "GET", "/orders", "", 401)
		s.call("", "POST", "/login", `{"tenant":"acme","name":"bob","password":"wrong"}`, 401)
		s.call("", "POST", "/login", `{"tenant":"acme","name":"nobody","password":"wrong"}`, 401)

		// Self-service: bob makes a key for himself, which outlasts his login.
		own, ownID := s.key(bob, `{"name":"export","scopes":["orders:read"],"days":30}`)
		s.call(own, "GET", "/orders", "", 200)
		s.call(own, "GET", "/keys", "", 403)
		s.call(bob, "POST", "/keys", `{"scopes":["orders:write"]}`, 403)
		s.call(bob, "POST", "/keys", `{"scopes":["*"]}`, 403)
		s.call(bob, "POST", "/keys", `{"scopes":["operator"]}`, 403)
		s.call(bob, "POST", "/keys", `{"service_account":"ci"}`, 403)
		s.call(bob, "POST", "/keys", `{"scopes":["a b"]}`, 400)

		// Ann, an admin, makes one for a service account, and sees all keys of the tenant.
		ci, ciID := s.key(ann, `{"name":"deploys","service_account":"ci","scopes":["orders:read"]}`)
		s.call(ci, "GET", "/orders", "", 200)
		require.Len(t, s.call(bob, "GET", "/keys", "", 200)["items"], 1)
		require.Len(t, s.call(ann, "GET", "/keys?all", "", 200)["items"], 2)
		s.call(bob, "GET", "/keys?all", "", 403)
		s.call(bob, "DELETE", "/keys/"+ciID, "", 404)

		// A suspended tenant is refused, and comes back as it was.
		s.call(bob, "DELETE", "/keys/"+ownID, "", 200)
		s.call(s.operator, "POST", "/tenants/acme/suspend", "", 200)
		for _, c := range []string{ann, bob, own, ci} {
			s.call(c, "GET", "/orders", "", 401)
		}
		s.call("", "POST", "/login", `{"tenant":"acme","name":"ann","password":"correct horse"}`, 401)
		s.call("", "POST", "/refresh", `{"refresh":"`+annRefresh+`"}`, 401)
		s.call(s.operator, "POST", "/tenants/acme/resume", "", 200)
		for _, c := range []string{ann, bob, ci} {
			s.call(c, "GET", "/orders", "", 200)
		}
		s.call(own, "GET", "/orders", "", 401)

		// A session goes on until its user logs out.
		got := s.call("", "POST", "/refresh", `{"refresh":"`+bobRefresh+`"}`, 200)
		bob = got["access"].(string)
		require.Len(t, s.call(bob, "GET", "/sessions", "", 200)["items"], 1)
		s.call(bob, "POST", "/logout", "", 200)
		s.call(bob, "GET", "/orders", "", 401)
		s.call("", "POST", "/refresh", `{"refresh":"`+got["refresh"].(string)+`"}`, 401)

		// Everything of the tenant ends; who logs in later is let in.
		require.Equal(t, false, s.call(s.operator, "POST", "/tenants/acme/revoke", "", 200)["unknown"])
		s.call(ann, "GET", "/orders", "", 401)
		s.call(ci, "GET", "/orders", "", 401)
		ann, _ = s.login("acme", "ann")
		s.call(ann, "GET", "/orders", "", 200)
		require.Equal(t, true, s.call(s.operator, "POST", "/tenants/amce/revoke", "", 200)["unknown"], "a mistyped name")

		log := s.stop()
		require.NotContains(t, log, "acme_live_1", "no secret is logged")
		require.NotContains(t, log, "v4.local.")
		require.Contains(t, log, "reason=disabled", "why a request was refused is")
	})
}

// A tenant's admin lists, ends and makes nothing of another tenant, whatever the names.
func TestTenantsAreIsolated(t *testing.T) {
	on(t, func(t *testing.T, s *service) {
		a, _ := s.user("a", "ann", "admin")
		b, _ := s.user("b", "ann", "admin")
		keyOfB, idOfB := s.key(b, `{"scopes":["orders:*"],"service_account":"ci"}`)
		keyOfA, _ := s.key(a, `{"scopes":["orders:*","keys:*"],"service_account":"ci"}`)
		for _, caller := range []string{a, keyOfA} {
			require.Contains(t, s.call(caller, "GET", "/orders", "", 200)["text"], "orders of a")
			s.call(caller, "DELETE", "/keys/"+idOfB, "", 404)
			for _, path := range []string{"/keys", "/keys?all"} {
				keys, _ := s.call(caller, "GET", path, "", 200)["items"].([]any)
				for _, key := range keys {
					require.Equal(t, "a", key.(map[string]any)["subject"].(map[string]any)["account"])
				}
			}
			for _, route := range []string{"suspend", "resume", "revoke"} {
				s.call(caller, "POST", "/tenants/b/"+route, "", 403)
			}
			s.call(caller, "PUT", "/tenants/b/users/eve", `{"role":"admin","password":"correct horse"}`, 403)
			s.call(caller, "DELETE", "/tenants/b/users/ann", "", 403)
		}
		require.Len(t, s.call(a, "GET", "/keys?all", "", 200)["items"], 1)
		s.call(s.operator, "POST", "/tenants/a/suspend", "", 200)
		s.call(keyOfA, "GET", "/orders", "", 401)
		s.call(keyOfB, "GET", "/orders", "", 200)
		s.call(b, "GET", "/orders", "", 200)
		s.call(s.operator, "GET", "/keys", "", 403) // of no tenant, so there is no list of all
	})
}

// Who has left is out at once, and who has less to do has less at the next refresh.
func TestUsersWhoChange(t *testing.T) {
	s := start(t, "")
	_, refresh := s.user("acme", "ann", "admin")
	s.call(s.operator, "PUT", "/tenants/acme/users/ann", `{"role":"member","password":"correct horse"}`, 200)
	less := s.call("", "POST", "/refresh", `{"refresh":"`+refresh+`"}`, 200)["access"].(string)
	s.call(less, "GET", "/orders", "", 200)
	s.call(less, "GET", "/keys?all", "", 403)
	ann, refresh := s.user("acme", "ann", "admin")
	_, _ = s.key(ann, `{"service_account":"ci"}`)
	own, _ := s.key(ann, `{"scopes":["orders:read"]}`)
	s.call(s.operator, "PUT", "/tenants/acme/users/ann", `{"role":"none","password":"correct horse"}`, 400)
	s.call(s.operator, "PUT", "/tenants/acme/users/ann", `{"role":"member","password":"short"}`, 400)
	s.call(s.operator, "DELETE", "/tenants/acme/users/ann", "", 200)
	s.call(ann, "GET", "/orders", "", 401)
	s.call(own, "GET", "/orders", "", 401)
	s.call("", "POST", "/refresh", `{"refresh":"`+refresh+`"}`, 401)
	s.call("", "POST", "/login", `{"tenant":"acme","name":"ann","password":"correct horse"}`, 401)
}
