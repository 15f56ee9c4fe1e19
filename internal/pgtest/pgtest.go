// Package pgtest runs throw-away PostgreSQL servers for tests: real ones, in a
// temporary folder, on the loopback interface. It imports the standard library and
// internal/port only, and never testing.
//
//	server, err := pgtest.Start(ctx, pgtest.Config{})
//	if errors.Is(err, pgtest.ErrNoServer) {
//		t.Skip(err) // says what is missing
//	}
//	defer server.Close()
//	pool, err := pgxpool.New(ctx, server.URL("postgres"))
//
// A server refuses to run as root, so as root everything runs as the user
// postgres, or nobody. On Linux a server ends with the process that started it,
// even one that is killed.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fobkit/fob/internal/port"
)

// Config is how a server is to be. The zero Config is a durable server with
// PostgreSQL's defaults.
type Config struct {
	// Settings are lines for postgresql.conf, such as "max_connections = 200".
	// They come last and so win over what this package sets.
	Settings []string
	// Log gets what the server logs. Nil discards it.
	Log io.Writer
}

// Server is a running, stopped or killed server and its data. It is safe for
// concurrent use. Its superuser is postgres.
type Server struct {
	config   Config
	bin      string     // folder of the programs
	dir      string     // everything, removed by Close
	port     *port.Port // kept until Close, whether the server runs or not
	password string

	mu      sync.Mutex // guards what is below, and every start and stop
	process *process   // nil while the server is down
	closed  bool
}

// patience bounds the start and the end of a server. None that works takes so long, on
// however busy a machine: it is for what hangs.
const patience = 5 * time.Minute

// Start makes an empty cluster and starts a server on it. It fails with
// ErrNoServer where PostgreSQL is not installed and cannot be: as root on Debian
// and its kin it is installed first.
func Start(ctx context.Context, config Config) (*Server, error) {
	bin, err := findServer(ctx)
	if err != nil {
		return nil, err
	}
	s, err := create(bin, config)
	if err != nil {
		return nil, err
	}
	if err := s.init(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create makes the folder of a server and keeps its port.
func create(bin string, config Config) (*Server, error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	kept, err := port.Keep()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: %w", err), os.Remove(dir))
	}
	return &Server{config: config, bin: bin, dir: dir, port: kept, password: rand.Text()}, nil
}

func (s *Server) init(ctx context.Context) error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.password), 0o600); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	if err := giveAway(secret); err != nil {
		return err
	}
	err := s.run(ctx, "initdb", "--pgdata", s.data(), "--username", "postgres", "--pwfile", secret,
		"--auth", "password", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if err != nil {
		return err
	}
	return s.begin(ctx)
}

// run runs one of the server's programs to its end.
func (s *Server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGPASSWORD="+s.password)
	cmd.SysProcAttr = unprivileged()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: %s: %w\n%s", program, err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// begin starts the server for the first time.
func (s *Server) begin(ctx context.Context) error {
	if err := s.configure(); err != nil {
		return err
	}
	return s.Restart(ctx)
}

func (s *Server) configure() error {
	settings := append([]string{
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(s.port.Number()),
		"unix_socket_directories = ''", // a path may be too long for one
		"max_connections = 200",
		"wal_level = replica",
		"max_wal_senders = 4",
		"shared_buffers = 64MB",
		"log_min_messages = warning",
	}, s.config.Settings...)
	text := strings.Join(settings, "\n") + "\n"
	name := filepath.Join(s.data(), "postgresql.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return giveAway(name)
}

// URL is how to connect to a database as the superuser: postgres is one that is
// there from the start.
func (s *Server) URL(database string) string { return s.URLAs("postgres", s.password, database) }

// URLAs is how to connect to a database as some user.
func (s *Server) URLAs(user, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: s.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Address is the host and port that the server listens on. It stays the server's own
// until Close, whether it runs or not (on Linux: elsewhere somebody may be given the
// port of a server that does not run).
func (s *Server) Address() string { return s.port.Addr() }

// Restart starts a server that is down, or stops and starts one that runs, on
// the same data and port; it returns when the server takes connections.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("pgtest: the server was closed")
	}
	// What a killed server left says nothing of this one.
	_ = os.Remove(s.pidFile())
	log := s.config.Log
	if log == nil {
		log = io.Discard
	}
	tail := &tail{to: log}
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data())
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = tail
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); !s.takesConnections(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			return fmt.Errorf("pgtest: the server ended at once: %w\n%s", p.err, tail)
		case <-ctx.Done():
			err = ctx.Err()
		default:
			if time.Now().After(deadline) {
				err = fmt.Errorf("no connection after %v\n%s", patience, tail)
			}
		}
		if err != nil {
			p.kill()
			return fmt.Errorf("pgtest: start: %w", err)
		}
	}
	s.process = p
	return nil
}

func (s *Server) pidFile() string { return filepath.Join(s.data(), "postmaster.pid") }

// takesConnections reads the state that a server keeps in the eighth line of
// its lock file.
func (s *Server) takesConnections() bool {
	text, err := os.ReadFile(s.pidFile())
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 8 {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

// Stop ends the server as an operator would who does not wait for clients
// (PostgreSQL's fast shutdown). One that is down is left alone.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Kill ends the server and all its processes with SIGKILL: a crash.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(with syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.process
	if p == nil {
		return nil
	}
	s.process = nil
	if with == syscall.SIGKILL {
		p.kill()
		return nil
	}
	if err := p.signal(with); err != nil {
		p.kill()
		return fmt.Errorf("pgtest: stop: %w", err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("pgtest: the server did not stop within %v and was killed", patience)
	}
}

// Signal sends a signal to the server's first process: SIGHUP makes it read its
// settings again.
func (s *Server) Signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("pgtest: the server is down")
	}
	return s.process.signal(sig)
}

// Close stops the server and removes its data. It may be called again.
func (s *Server) Close() error {
	err := s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return errors.Join(err, s.port.Release(), os.RemoveAll(s.dir))
}

// Standby makes a copy of a running server and starts it as a hot standby that
// follows it, with the server's settings and then its own. Close it as well.
func (s *Server) Standby(ctx context.Context, config Config) (*Server, error) {
	config.Settings = slices.Concat(s.config.Settings, config.Settings)
	standby, err := create(s.bin, config)
	if err != nil {
		return nil, err
	}
	standby.password = s.password
	host, port, _ := net.SplitHostPort(s.Address())
	err = standby.run(ctx, "pg_basebackup", "--pgdata", standby.data(), "--host", host, "--port", port, "--username", "postgres",
		"--write-recovery-conf", "--checkpoint", "fast", "--wal-method", "stream", "--no-sync")
	if err == nil {
		err = standby.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// Promote makes a standby a primary.
func (s *Server) Promote(ctx context.Context) error {
	return s.run(ctx, "pg_ctl", "promote", "--pgdata", s.data(), "--wait")
}

// tail passes on what is logged and keeps the end of it for an error.
type tail struct {
	mu   sync.Mutex // guards all
	to   io.Writer
	last []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	t.last = t.last[max(0, len(t.last)-4096):]
	return t.to.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
