package backendtest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// journal is the smallest store that outlives its process: the memory store, and
// a file of what was done to it, done again when it is opened.
type journal struct {
	*memory.Store
	path  string
	flaws journalFlaws

	mu  sync.Mutex // makes an operation and its line one
	out *bufio.Writer
	f   *os.File
}

// journalFlaws are ways to lose what was acknowledged.
type journalFlaws struct {
	Buffered  bool // lines reach the file at Close only
	NoDeletes bool
	NoUsage   bool
	NoLabels  bool
	LoseLast  bool // at Open
}

// line is one operation.
type line struct {
	Put     *backend.Record `json:",omitempty"`
	Owner   []byte          // of Put: JSON strings hold no bytes
	Labels  [][]byte        `json:",omitempty"` // of Put, too
	Version *uint64         `json:",omitempty"` // of the condition; none for IfAbsent
	Delete  *backend.ID     `json:",omitempty"`
	Usage   []backend.Usage `json:",omitempty"`
	Purge   *time.Time      `json:",omitempty"`
	Limit   int
}

func openJournal(path string, flaws journalFlaws) (*journal, error) {
	j := &journal{Store: memory.New(), path: path, flaws: flaws}
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	lines := bytes.SplitAfter(old, []byte("\n"))
	lines = lines[:len(lines)-1] // what has no end was not acknowledged
	whole := 0
	for _, text := range lines {
		whole += len(text)
	}
	if flaws.LoseLast && len(lines) > 0 {
		lines = lines[:len(lines)-1]
	}
	for _, text := range lines {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, err
		}
		err := j.redo(l)
		if flaws.NoDeletes && errors.Is(err, backend.ErrConflict) {
			continue // made anew, after a delete that was not kept
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	if j.f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		_, err = j.f.Seek(int64(whole), 0)
	}
	j.out = bufio.NewWriterSize(j.f, 1<<20)
	return j, err
}

func (j *journal) redo(l line) (err error) {
	ctx := context.Background()
	switch {
	case l.Put != nil:
		rec, cond := *l.Put, backend.IfAbsent()
		rec.Owner, rec.Labels = string(l.Owner), nil
		for _, label := range l.Labels {
			rec.Labels = append(rec.Labels, string(label))
		}
		if l.Version != nil {
			cond = backend.IfVersion(*l.Version)
		}
		_, err = j.Store.Put(ctx, rec, cond)
	case l.Delete != nil:
		err = j.Store.Delete(ctx, *l.Delete, *l.Version)
	case l.Purge != nil:
		_, err = j.Store.Purge(ctx, *l.Purge, l.Limit)
	default:
		err = j.Store.AddUsage(ctx, l.Usage)
	}
	return err
}

// did writes a line about what has just succeeded.
func (j *journal) did(l line) {
	text, err := json.Marshal(l)
	if err == nil {
		_, err = j.out.Write(append(text, '\n'))
	}
	if err == nil && !j.flaws.Buffered {
		err = j.out.Flush()
	}
	if err != nil {
		panic(err)
	}
}

func (j *journal) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v, err := j.Store.Put(ctx, rec, cond)
	if err == nil {
		l := line{Put: &rec, Owner: []byte(rec.Owner)}
		for _, label := range rec.Labels {
			if !j.flaws.NoLabels {
				l.Labels = append(l.Labels, []byte(label))
			}
		}
		if over, ok := cond.Version(); ok {
			l.Version = &over
		}
		j.did(l)
	}
	return v, err
}

func (j *journal) Delete(ctx context.Context, id backend.ID, version uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.Store.Delete(ctx, id, version)
	if err == nil && !j.flaws.NoDeletes {
		j.did(line{Delete: &id, Version: &version})
	}
	return err
}

func (j *journal) AddUsage(ctx context.Context, batch []backend.Usage) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.Store.AddUsage(ctx, batch)
	if err == nil && !j.flaws.NoUsage {
		j.did(line{Usage: batch})
	}
	return err
}

func (j *journal) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.Store.Purge(ctx, before, limit)
	if err == nil {
		j.did(line{Purge: &before, Limit: limit})
	}
	return n, err
}

func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	err := j.Store.Close()
	if err == nil {
		err = j.out.Flush()
	}
	if err == nil {
		err = j.f.Close()
	}
	j.f = nil
	return err
}

// journals makes stores in new places, and opens them again.
func journals(flaws journalFlaws) (func(t *testing.T) backend.Store, backendtest.Options) {
	newStore := func(t *testing.T) backend.Store {
		j, err := openJournal(filepath.Join(t.TempDir(), "journal"), flaws)
		require.NoError(t, err)
		return j
	}
	return newStore, backendtest.Options{Reopen: func(t *testing.T, s backend.Store) backend.Store {
		old := s.(*journal)
		require.NoError(t, old.Close())
		j, err := openJournal(old.path, flaws)
		require.NoError(t, err)
		return j
	}}
}

// TestMain is also the process that KillLoop kills.
func TestMain(m *testing.M) {
	path := os.Getenv("KILL_PATH")
	if path == "" {
		os.Exit(m.Run())
	}
	round, err := strconv.Atoi(os.Getenv("KILL_ROUND"))
	var j *journal
	if err == nil {
		j, err = openJournal(path, journalFlaws{Buffered: os.Getenv("KILL_BUFFERED") != ""})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if os.Getenv("KILL_QUITS") != "" {
		os.Exit(0)
	}
	backendtest.KillWriter(j, os.Stdout, round)
}

// killed is the command of a process that opens a journal.
func killed(t *testing.T, path string, env ...string) func(round int) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	return func(round int) *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), append(env, "KILL_PATH="+path, fmt.Sprint("KILL_ROUND=", round))...)
		return cmd
	}
}

func TestADurableStorePasses(t *testing.T) {
	newStore, opts := journals(journalFlaws{})
	opts.Kill = func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "journal")
		backendtest.KillLoop(t, 3, killed(t, path), func(t *testing.T) backend.Store {
			j, err := openJournal(path, journalFlaws{})
			require.NoError(t, err)
			return j
		})
	}
	backendtest.Run(t, newStore, opts)
}

func TestKillLoopFindsWhatIsLost(t *testing.T) {
	fails := func(env ...string) string {
		path := filepath.Join(t.TempDir(), "journal")
		return backendtest.KillFailure(2, killed(t, path, env...), func() backend.Store {
			j, err := openJournal(path, journalFlaws{})
			require.NoError(t, err)
			return j
		})
	}
	require.Contains(t, fails("KILL_BUFFERED=yes"), "rule R9 of package backend: a Put that returned nil survives: ")
	require.Contains(t, fails("KILL_QUITS=yes"), "the process ended by itself after 0 writes")
	require.Empty(t, fails())
}
