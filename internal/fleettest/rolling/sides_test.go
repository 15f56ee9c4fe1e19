package rolling_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/internal/fleettest/rolling"
)

var (
	// errRefused is a program that refuses the layout of the other one, and may do so.
	errRefused = errors.New("it refuses the layout of the other program")
	// errUnknown is a program that is too old to know what it is asked for.
	errUnknown = errors.New("it does not know this request")
)

// side is one of the two programs while it runs.
type side struct {
	partner
	of *version
}

// begin starts a version on a store. The error is errRefused if it may refuse.
func (v *version) begin(ctx context.Context, at rolling.Store) (*side, error) {
	p, first, err := v.starts(ctx, at)
	if err == nil {
		err = judge(first, v.refusesStart)
		if errors.Is(err, errRefused) {
			v.refused++
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s starts: %w", v.name, err)
	}
	return &side{p, v}, nil
}

// judge says what is wrong with an answer: a program must not fail, or only in the words
// in which it may refuse.
func judge(r rolling.Reply, refuses *regexp.Regexp) error {
	switch {
	case r.Word == rolling.Unknown:
		return errUnknown
	case r.Word != rolling.Failed:
		return nil
	case refuses != nil && refuses.MatchString(r.Err):
		return errRefused
	}
	return fmt.Errorf("it fails: %s", r.Err)
}

// asked asks, and returns the answer if it is a verdict.
func (s *side) asked(ctx context.Context, req rolling.Request) (rolling.Reply, error) {
	r, err := s.ask(ctx, req)
	if err == nil {
		err = judge(r, s.of.refuses)
	}
	if err != nil {
		return r, fmt.Errorf("%s is asked to %s: %w", s.of.name, req.Do, err)
	}
	return r, nil
}

// does asks for what must be done.
func (s *side) does(ctx context.Context, req rolling.Request) (rolling.Reply, error) {
	r, err := s.asked(ctx, req)
	if err == nil && r.Word != rolling.Done {
		err = fmt.Errorf("%s must %s, and says %q: %s", s.of.name, req.Do, r.Word, r.Err)
	}
	return r, err
}

// sees verifies a credential, and fails unless the answer is that word; if it is accepted,
// with these scopes.
func (s *side) sees(ctx context.Context, what, text, word, scopes string) error {
	r, err := s.asked(ctx, rolling.Request{Do: rolling.Verify, Text: text})
	switch {
	case err != nil:
		return err
	case r.Word != word:
		return fmt.Errorf("%s says %q of %s, not %q: %s", s.of.name, r.Word, what, word, r.Err)
	case word == rolling.Done && r.Scopes != scopes:
		return fmt.Errorf("%s says that %s has the scopes %q, not %q", s.of.name, what, r.Scopes, scopes)
	}
	return nil
}

// comes verifies a credential until holds, which a change that another program made brings
// about. What is said meanwhile must be before, and no such verification may have begun at the
// instant by, or later.
func (s *side) comes(ctx context.Context, what, text string, by int64, before, after func(rolling.Reply) bool) error {
	for {
		r, err := s.ask(ctx, rolling.Request{Do: rolling.Verify, Text: text})
		switch {
		case err != nil:
			return fmt.Errorf("%s verifies %s: %w", s.of.name, what, err)
		case after(r):
			return judge(r, s.of.refuses)
		case !before(r):
			if err := judge(r, s.of.refuses); err != nil {
				return fmt.Errorf("%s verifies %s: %w", s.of.name, what, err)
			}
			return fmt.Errorf("%s says %q of %s: %s", s.of.name, r.Word, what, r.Err)
		case r.Began >= by:
			return fmt.Errorf("%s still says %q of %s, %v after the instant from which on it may not", s.of.name, r.Word, what, time.Duration(r.Began-by))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was never told of a change of %s: %w", s.of.name, what, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func says(word string) func(rolling.Reply) bool {
	return func(r rolling.Reply) bool { return r.Word == word }
}

// lists lists keys, and fails unless these are among them.
func (s *side) lists(ctx context.Context, req rolling.Request, ids []string) error {
	r, err := s.does(ctx, req)
	if err != nil {
		return err
	}
	slices.Sort(ids)
	if slices.Sort(r.IDs); !slices.Equal(r.IDs, ids) {
		return fmt.Errorf("%s lists by subject %q and tag %q: %s; it should list %s",
			s.of.name, req.Subject, req.Tag, strings.Join(r.IDs, " "), strings.Join(ids, " "))
	}
	return nil
}
