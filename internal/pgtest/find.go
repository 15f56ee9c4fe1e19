package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNoServer says that PostgreSQL's server is not installed: tests skip with it.
var ErrNoServer = errors.New("pgtest: no PostgreSQL server is installed (on Debian: apt-get install postgresql)")

// findServer is the folder of the newest server's programs, which are installed
// if there are none and that is possible.
func findServer(ctx context.Context) (string, error) {
	if bin, ok := installedServer(); ok {
		return bin, nil
	}
	if err := install(ctx, "postgresql"); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoServer, err)
	}
	if bin, ok := installedServer(); ok {
		return bin, nil
	}
	return "", ErrNoServer
}

// installedServer looks where distributions put servers of several versions, and
// in PATH.
func installedServer() (bin string, ok bool) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is well-formed
	more, _ := filepath.Glob("/usr/pgsql-*/bin/postgres")
	found = append(found, more...)
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })), true
	}
	name, err := exec.LookPath("postgres")
	if err != nil {
		return "", false
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target // initdb is beside the program, not beside a link to it
	}
	return filepath.Dir(name), true
}

// version is the number in the name of the folder above bin.
func version(program string) int {
	name := filepath.Base(filepath.Dir(filepath.Dir(program)))
	for len(name) > 0 && (name[0] < '0' || name[0] > '9') {
		name = name[1:]
	}
	n, _ := strconv.Atoi(name) // 0, the oldest, for what is no number
	return n
}

// install installs a Debian package, as root.
func install(ctx context.Context, name string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return errors.New("not root on a machine with apt-get")
	}
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", name}} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// folder makes an empty folder that the server's user owns and can reach: the
// usual temporary folder may be root's alone.
func folder() (string, error) {
	var errs []error
	for _, base := range []string{os.TempDir(), "/var/tmp", "/tmp", "/dev/shm"} {
		if !reachable(base) {
			continue
		}
		dir, err := os.MkdirTemp(base, "fob-pg-")
		if err == nil {
			if err = giveAway(dir); err == nil {
				return dir, nil
			}
			_ = os.Remove(dir) // it is empty; the error to report is the first
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("pgtest: no folder for the data: %w", errors.Join(errs...))
}

// reachable reports whether any user can enter a folder; without root there is
// only one user to ask for.
func reachable(dir string) bool {
	if os.Geteuid() != 0 {
		return true
	}
	dir, err := filepath.Abs(dir)
	for err == nil {
		var info os.FileInfo
		if info, err = os.Stat(dir); err != nil || !info.IsDir() || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
	return false
}
