package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fobkit/fob/internal/port"
)

// ErrNoPooler says that PgBouncer is not installed: tests skip with it.
var ErrNoPooler = errors.New("pgtest: PgBouncer is not installed (on Debian: apt-get install pgbouncer)")

// Pooler is a PgBouncer in front of a server.
type Pooler struct {
	server  *Server
	dir     string
	port    *port.Port
	process *process
}

// Pooler starts a PgBouncer in transaction mode in front of a server, with few
// connections to it. It is installed first where that is possible, and fails with
// ErrNoPooler where not.
func (s *Server) Pooler(ctx context.Context) (*Pooler, error) {
	program, err := findPooler(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	p := &Pooler{server: s, dir: dir}
	if p.port, err = port.Keep(); err == nil {
		err = p.start(ctx, program)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func findPooler(ctx context.Context) (string, error) {
	find := func() (string, bool) {
		for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
			if found, err := exec.LookPath(name); err == nil {
				return found, true
			}
		}
		return "", false
	}
	if found, ok := find(); ok {
		return found, nil
	}
	if err := install(ctx, "pgbouncer"); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoPooler, err)
	}
	if found, ok := find(); ok {
		return found, nil
	}
	return "", ErrNoPooler
}

func (p *Pooler) start(ctx context.Context, program string) error {
	host, port, err := net.SplitHostPort(p.server.Address())
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	users := filepath.Join(p.dir, "users")
	config := filepath.Join(p.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = plain
auth_file = %s
pool_mode = transaction
default_pool_size = 5
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
`, host, port, p.port.Number(), users)
	for name, text := range map[string]string{users: fmt.Sprintf("%q %q\n", "postgres", p.server.password), config: text} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
		if err := giveAway(name); err != nil {
			return err
		}
	}
	cmd := exec.Command(program, config)
	cmd.Dir = p.dir
	log := &tail{to: io.Discard}
	cmd.Stderr = log
	if p.process, err = launch(cmd); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp4", p.Address())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.process.ended:
			return fmt.Errorf("pgtest: pgbouncer ended at once: %w\n%s", p.process.err, log)
		default:
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			p.process.kill()
			return fmt.Errorf("pgtest: pgbouncer: %w\n%s", errors.Join(err, ctx.Err()), log)
		}
	}
}

// Address is the host and port that the pooler listens on.
func (p *Pooler) Address() string { return p.port.Addr() }

// URL is how to connect to a database through the pooler, as the superuser.
func (p *Pooler) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", p.server.password), Host: p.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Close ends the pooler. It may be called again.
func (p *Pooler) Close() error {
	if p.process != nil { // else it could not start
		p.process.kill()
	}
	return errors.Join(p.port.Release(), os.RemoveAll(p.dir))
}
