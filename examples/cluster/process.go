package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/fobkit/fob"
)

// childEnv is the environment variable with the storeAt, as JSON, of a child process.
const childEnv = "FOB_EXAMPLE_CLUSTER"

// request and reply are one line each, to and from a process. Instants are Unix
// nanoseconds: all processes run on one machine, and read one clock.
type request struct {
	Do   string
	Text string `json:",omitempty"`
	ID   string `json:",omitempty"`
}

type reply struct {
	Began, Ended int64
	Said         string `json:",omitempty"`
	Text         string `json:",omitempty"`
	ID           string `json:",omitempty"`
	Err          string `json:",omitempty"`
}

// process is one of the three child processes, as the program that prints the story sees it.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(ctx context.Context, s storeAt) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err = p.read(); err != nil { // the first reply says that the process is ready
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// stop closes the input of the process, which then ends by itself.
func (p *process) stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

func (p *process) ask(r request) (reply, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return reply{}, err
	}
	if _, err := p.in.Write(append(text, '\n')); err != nil {
		return reply{}, err
	}
	return p.read()
}

func (p *process) read() (reply, error) {
	if !p.out.Scan() {
		return reply{}, errors.Join(errors.New("a process has ended"), p.out.Err())
	}
	var r reply
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		return reply{}, err
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// runChild is what each of the three processes does.
func runChild(ctx context.Context, text string, in io.Reader, out io.Writer) (err error) {
	var s storeAt
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	store, closeStore, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	keys, err := fob.New(store, fob.Config{Prefix: "acme_live"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	if err := following(keys, s.Wait); err != nil {
		return err
	}
	say := json.NewEncoder(out)
	if err := say.Encode(reply{}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			return err
		}
		r := reply{Began: time.Now().UnixNano()}
		if err := do(ctx, keys, req, &r); err != nil {
			r.Err = err.Error()
		}
		r.Ended = time.Now().UnixNano()
		if err := say.Encode(r); err != nil {
			return err
		}
		if req.Do == "watch" && r.Err == "" {
			if err := say.Encode(untilRefused(ctx, keys, req.Text, s.Wait)); err != nil {
				return err
			}
		}
	}
	return nil
}

// following waits, for a limited time, until the process follows the feed of the store.
func following(keys *fob.Manager, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		h := keys.Health()
		if h.Following {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(errors.New("the store does not answer"), h.Err)
		}
	}
}

func do(ctx context.Context, keys *fob.Manager, req request, r *reply) error {
	switch req.Do {
	case "issue":
		secret, key, err := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
		if err != nil {
			return err
		}
		r.Text, r.ID = secret.Reveal(), key.ID().String()
		return nil
	case "verify", "watch":
		cred, err := keys.Verify(ctx, req.Text)
		switch {
		case errors.Is(err, fob.ErrRejected):
			r.Said = "refused: " + err.Error()
		case err != nil:
			return err
		default:
			r.Said = "accepted, it is " + cred.Subject().Name + "'s"
		}
		return nil
	}
	id, err := fob.ParseID(req.ID)
	if err != nil {
		return err
	}
	switch req.Do {
	case "revoke":
		_, err = keys.Revoke(ctx, id, "leaked")
	case "everywhere":
		var receipt fob.Receipt
		if receipt, err = keys.Revoke(ctx, id, "leaked"); err == nil {
			err = receipt.Wait(ctx)
		}
	default:
		err = fmt.Errorf("what is %q?", req.Do)
	}
	return err
}

// untilRefused verifies a key again and again until it is refused. It returns when the
// last verification that accepted the key began.
func untilRefused(ctx context.Context, keys *fob.Manager, text string, patience time.Duration) reply {
	var last int64
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		began := time.Now()
		_, err := keys.Verify(ctx, text)
		switch {
		case errors.Is(err, fob.ErrRejected):
			return reply{Began: last}
		case err == nil:
			last = began.UnixNano()
		case began.After(end):
			return reply{Err: err.Error()}
		}
		if began.After(end) {
			return reply{Err: "still accepted after " + patience.String()}
		}
	}
}
