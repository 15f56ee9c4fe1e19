package rolling_test

import (
	"context"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/fobkit/fob/internal/fleettest/rolling"
	"github.com/stretchr/testify/require"
)

// root is the root of this repository.
const root = "../../.."

// earlier are the commits whose programs have to work beside the one of this commit. A commit
// is named by its hash as long as there are no releases.
//
// Only the commit before accounts may have refusals, because nothing was released then. What
// a later one refuses would be an outage during a deploy: a row for it has none, ever.
var earlier = []struct {
	commit string
	source string // its program, if it has none itself
	// refuses is in which words it refuses the layout of this commit, by the kind of the
	// store. An error of that commit cannot name a layout that it does not know of.
	refuses  map[string]refusal
	noLabels bool // see docs/decisions/0023-the-model.md
}{
	{
		commit: "f2c0e6f", // the last one before accounts, labels and the second layouts
		source: "testdata/f2c0e6f.go.txt",
		refuses: map[string]refusal{
			"badger": {start: "unknown format 02"},
			"sqlite": {
				start:   "it has version 2 of the tables, this program knows 1",
				running: "the tables have version 2, this program knows 1|" + newFields,
			},
			"postgres": {
				start:   "is at migration 2, newer than the 1 that this version knows",
				running: "the tables are of migration 2, this program knows 1|" + newFields,
			},
			"etcd": {
				start:   "of a layout that this version does not know: backend: unavailable",
				running: "of a layout that this version does not know: backend: unavailable|etcd: record [0-9a-f]+: backend: corrupt record",
			},
		},
		noLabels: true,
	},
}

// refusal has the words, as regular expressions, of an error when a program starts, and of
// one while it runs beside a program that was deployed later.
type refusal struct{ start, running string }

// newFields is what is said of a record by a program that does not know all of its fields.
const newFields = `corrupt record: kind \d+: (fields|epoch)`

func TestRollingDeploy(t *testing.T) {
	now := thisProgram(t)
	t.Run("this commit", func(t *testing.T) {
		onEveryStore(t, version{starts: now}, now, nil)
	})
	for _, e := range earlier {
		t.Run(e.commit, func(t *testing.T) {
			tree, exe := t.TempDir(), filepath.Join(t.TempDir(), "program")
			require.NoError(t, checkOut(t.Context(), root, e.commit, tree))
			require.NoError(t, build(t.Context(), tree, e.source, exe))
			onEveryStore(t, version{starts: executable(exe), noLabels: e.noLabels}, now, e.refuses)
		})
	}
}

func thisProgram(t *testing.T) starts {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "program")
	require.NoError(t, build(t.Context(), root, "", exe))
	return executable(exe)
}

func onEveryStore(t *testing.T, old version, now starts, refuses map[string]refusal) {
	t.Helper()
	for kind, fresh := range stores {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			old := old
			old.name = "the old program"
			d := &deployment{old: &old, now: &version{name: "the new program", starts: now}, at: fresh(t)}
			words, may := refuses[kind]
			if may {
				d.old.refusesStart = regexp.MustCompile(words.start)
			}
			if words.running != "" {
				d.old.refuses = regexp.MustCompile(words.running)
			}
			deploy := d.rolls
			if kind == "badger" {
				deploy = d.takesTurns
			}
			require.NoError(t, deploy(t.Context()))
			require.Equal(t, may, d.old.refused > 0, "a refusal that is not needed any more must leave the table")
		})
	}
}

// A program that is wrong in one thing is found.
func TestWhatIsWrongIsFound(t *testing.T) {
	now := thisProgram(t)
	for what, lie := range map[string]func(rolling.Request, rolling.Reply) rolling.Reply{
		"a program that never hears of revocations": func(_ rolling.Request, r rolling.Reply) rolling.Reply {
			if r.Word == rolling.Revoked {
				r.Word, r.Scopes = rolling.Done, scope
			}
			return r
		},
		"a program that accepts what is disabled": func(_ rolling.Request, r rolling.Reply) rolling.Reply {
			if r.Word == rolling.Disabled {
				r.Word, r.Scopes = rolling.Done, scope
			}
			return r
		},
		"a program that loses scopes": func(_ rolling.Request, r rolling.Reply) rolling.Reply {
			r.Scopes = ""
			return r
		},
		"a program that leaves one out of a list": func(_ rolling.Request, r rolling.Reply) rolling.Reply {
			if len(r.IDs) > 1 {
				r.IDs = r.IDs[1:]
			}
			return r
		},
		"a program that fails to revoke": func(req rolling.Request, r rolling.Reply) rolling.Reply {
			if req.Do == rolling.Revoke {
				return rolling.Reply{Word: rolling.Failed, Err: "the store is of a later version"}
			}
			return r
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			lying := func(ctx context.Context, at rolling.Store) (partner, rolling.Reply, error) {
				p, first, err := now(ctx, at)
				return liar{p, lie}, first, err
			}
			d := &deployment{old: &version{name: "the liar", starts: lying}, now: &version{name: "the new program", starts: now}, at: onFile(t)}
			require.ErrorContains(t, d.rolls(t.Context()), "the liar")
		})
	}
}

// liar is a program that gives other answers than it found.
type liar struct {
	partner
	lie func(rolling.Request, rolling.Reply) rolling.Reply
}

func (l liar) ask(ctx context.Context, req rolling.Request) (rolling.Reply, error) {
	r, err := l.partner.ask(ctx, req)
	return l.lie(req, r), err
}

// A checkout that lacks the history says so, and what to do.
func TestNoHistory(t *testing.T) {
	dir := t.TempDir()
	_, err := git(t.Context(), dir, "init", "-q", dir)
	require.NoError(t, err)
	require.ErrorIs(t, checkOut(t.Context(), dir, earlier[0].commit, t.TempDir()), errNoHistory)
}
