package rolling

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fobkit/fob"
)

// Run is the program: it opens the store that args name (see Store.Args), and does what the
// lines of in ask it, one after the other, until in ends. If it cannot start, the first line
// of out says why, and Run returns the error too.
func Run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	say := json.NewEncoder(out)
	fail := func(err error) error {
		return errors.Join(err, say.Encode(Reply{Word: Failed, Err: err.Error()}))
	}
	at, err := parse(args)
	if err != nil {
		return fail(err)
	}
	store, closeStore, err := at.open(ctx)
	if err != nil {
		return fail(err)
	}
	defer closeStore()
	m, err := fob.New(store, fob.Config{
		Prefix:   "acme_live",
		Imported: &fob.ImportedKeys{},
		Tokens: &fob.TokenConfig{
			Issuer: "https://issuer.test", Audiences: []string{"api"}, SealKey: []byte(strings.Repeat("s", 32)),
		},
	})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = m.Close() }() // usage may be lost
	if err := m.Check(ctx); err != nil {
		return fail(err)
	}
	if err := say.Encode(Reply{Word: Done}); err != nil {
		return err
	}
	for lines := json.NewDecoder(in); ; {
		var line json.RawMessage
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := say.Encode(answer(ctx, m, line)); err != nil {
			return err
		}
	}
}

// errUnknown is what a program of a later commit may ask, and this one does not know.
var errUnknown = errors.New("unknown request")

func answer(ctx context.Context, m *fob.Manager, line []byte) Reply {
	r := Reply{Word: Done, Began: time.Now().UnixNano()}
	var req Request
	lines := json.NewDecoder(bytes.NewReader(line))
	lines.DisallowUnknownFields()
	err := lines.Decode(&req)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnknown, err)
	} else {
		err = do(ctx, m, req, &r)
	}
	if err == nil {
		return r
	}
	r.Err = err.Error()
	switch {
	case errors.Is(err, errUnknown):
		r.Word = Unknown
	case errors.Is(err, fob.ErrRevoked):
		r.Word = Revoked
	case errors.Is(err, fob.ErrDisabled):
		r.Word = Disabled
	case errors.Is(err, fob.ErrRejected):
		r.Word = Rejected
	default:
		r.Word = Failed
	}
	return r
}

func do(ctx context.Context, m *fob.Manager, req Request, r *Reply) error {
	switch req.Do {
	case Issue, IssueInAccount:
		subject := fob.App(req.Subject)
		if req.Do == IssueInAccount {
			subject = subject.In(fob.Account(req.Account))
		}
		secret, key, err := m.IssueKey(ctx, spec(subject, req))
		if err == nil {
			r.Text, r.ID = secret.Reveal(), key.ID().String()
		}
		return err
	case Import:
		key, err := m.ImportKey(ctx, spec(fob.App(req.Subject), req), fob.ImportedKey{Secret: req.Text})
		if err == nil {
			r.ID = key.ID().String()
		}
		return err
	case Verify:
		cred, err := m.Verify(ctx, req.Text)
		if err == nil {
			r.ID, r.Scopes = cred.ID().String(), cred.Scopes().String()
		}
		return err
	case Exchange, Refresh:
		var issued fob.Issued
		var err error
		if req.Do == Exchange {
			issued, err = m.ExchangeKey(ctx, req.Text, fob.TokenSpec{Scopes: fob.Scopes{fob.Scope(req.Scope)}, Refreshable: true})
		} else {
			issued, err = m.Refresh(ctx, req.Text)
		}
		if err == nil {
			r.Text, r.Next = issued.Access.Reveal(), issued.Refresh.Reveal()
			r.ID, r.Session = issued.Token.ID().String(), issued.Token.Session().String()
		}
		return err
	case List:
		return list(ctx, m, req, r)
	case Update, Rotate:
		return change(ctx, m, req, r)
	}
	return end(ctx, m, req, r)
}

func spec(subject fob.Subject, req Request) fob.KeySpec {
	s := fob.KeySpec{Subject: subject}
	if req.Scope != "" {
		s.Scopes = fob.Scopes{fob.Scope(req.Scope)}
	}
	if req.Tag != "" {
		s.Tags = []string{req.Tag}
	}
	return s
}

func list(ctx context.Context, m *fob.Manager, req Request, r *Reply) error {
	q := fob.Query{Tag: req.Tag}
	if req.Subject != "" {
		q.Subject = fob.App(req.Subject)
	}
	for {
		page, err := m.List(ctx, q)
		if err != nil {
			return err
		}
		for _, key := range page.Items {
			r.IDs = append(r.IDs, key.ID().String())
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

func change(ctx context.Context, m *fob.Manager, req Request, r *Reply) error {
	id, err := fob.ParseID(req.ID)
	if err != nil {
		return err
	}
	if req.Do == Rotate {
		secret, key, err := m.RotateKey(ctx, id, fob.Rotation{Overlap: time.Hour})
		if err == nil {
			r.Text, r.ID = secret.Reveal(), key.ID().String()
		}
		return err
	}
	if _, err = m.UpdateKey(ctx, id, fob.KeyUpdate{Scopes: &fob.Scopes{fob.Scope(req.Scope)}}); err != nil {
		return err
	}
	return r.everywhere(ctx, m)
}

// everywhere says by when a change holds that has no receipt.
func (r *Reply) everywhere(ctx context.Context, m *fob.Manager) error {
	bound, err := m.FleetStaleness(ctx)
	r.By = time.Now().Add(bound).UnixNano()
	return err
}

// end revokes, disables or enables a target.
func end(ctx context.Context, m *fob.Manager, req Request, r *Reply) error {
	var target fob.Target
	switch req.Do {
	case Revoke, Disable, Enable:
		id, err := fob.ParseID(req.ID)
		if err != nil {
			return err
		}
		target = id
	case RevokeSubject, DisableSubject, EnableSubject:
		target = fob.App(req.Subject)
	case DisableAccount, EnableAccount:
		target = fob.Account(req.Account)
	default:
		return errUnknown
	}
	var err error
	switch req.Do {
	case Revoke, RevokeSubject:
		var receipt fob.Receipt
		receipt, err = m.Revoke(ctx, target, "rolling")
		r.By = receipt.EverywhereBy.UnixNano()
		return err
	case Disable, DisableSubject, DisableAccount:
		err = m.Disable(ctx, target, "rolling")
	default:
		err = m.Enable(ctx, target)
	}
	if err != nil {
		return err
	}
	return r.everywhere(ctx, m)
}
