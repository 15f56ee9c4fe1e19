package rolling_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/fobkit/fob/internal/fleettest/rolling"
)

// partner is a program that was asked to start.
type partner interface {
	// ask asks for something. The error is that there was no answer.
	ask(ctx context.Context, req rolling.Request) (rolling.Reply, error)
	// stop ends the program in order.
	stop() error
}

// starts starts a program, and returns its first answer. There is no partner if it refuses
// to start.
type starts func(ctx context.Context, at rolling.Store) (partner, rolling.Reply, error)

// process is a program that runs.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	errText *lockedText
}

// executable starts the program in a file. It is killed when ctx ends.
func executable(file string) starts {
	return func(ctx context.Context, at rolling.Store) (partner, rolling.Reply, error) {
		p := &process{cmd: exec.CommandContext(ctx, file, at.Args()...), errText: new(lockedText)}
		p.cmd.Stderr = p.errText
		var err error
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			return nil, rolling.Reply{}, err
		}
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, rolling.Reply{}, err
		}
		p.out = json.NewDecoder(out)
		if err := p.cmd.Start(); err != nil {
			return nil, rolling.Reply{}, err
		}
		first, err := p.next()
		if err != nil {
			return nil, first, err
		}
		if first.Word != rolling.Done {
			_ = p.stop() // it ends with an error, which it has told
			return nil, first, nil
		}
		return p, first, nil
	}
}

func (p *process) next() (r rolling.Reply, err error) {
	if err := p.out.Decode(&r); err != nil {
		_ = p.cmd.Process.Kill() // if it has not ended
		_ = p.cmd.Wait()         // what it printed says more than its status
		return r, fmt.Errorf("the program gives no answer: %w: %s", err, p.errText)
	}
	return r, nil
}

func (p *process) ask(_ context.Context, req rolling.Request) (rolling.Reply, error) {
	if err := json.NewEncoder(p.in).Encode(req); err != nil {
		return rolling.Reply{}, fmt.Errorf("the program has ended: %w: %s", err, p.errText)
	}
	return p.next()
}

func (p *process) stop() error {
	_ = p.in.Close() // it may have ended
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the program ended with %w: %s", err, p.errText)
	}
	return nil
}

// lockedText is what a program prints on its standard error.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// version is a program and what it may refuse.
type version struct {
	name   string
	starts starts
	// refusesStart are the words in which it may refuse to start on what the other version
	// has left, and refuses those in which it may refuse what it is asked while it runs
	// beside that; nil: it may not refuse.
	refusesStart, refuses *regexp.Regexp

	refused int // how often it refused to start
	// noLabels says that its records have no labels. A program that lists by label does not
	// find its keys by their tags.
	noLabels bool
}
