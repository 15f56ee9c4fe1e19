package rolling_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/internal/fleettest/rolling"
)

// refusedOr is nil if a program did what it was asked, or may refuse it and did.
func refusedOr(err error) error {
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// deployment replaces the program of one version by that of another, on one store.
type deployment struct {
	old, now *version
	at       rolling.Store
	made     []*goods
}

// rolls runs the two beside each other: the old one is there first, and has made the store.
// Then it goes, and comes back, as after a deploy that is taken back.
func (d *deployment) rolls(ctx context.Context) error {
	o, err := d.begins(ctx, d.old)
	if err != nil {
		return err
	}
	n, err := d.begins(ctx, d.now)
	if err != nil {
		return err
	}
	theirs, ours := d.made[0], d.made[1]

	// What the new one makes and changes is seen by the old one.
	if err := refusedOr(o.reads(ctx, ours)); err != nil {
		return err
	}
	if err := n.changes(ctx, theirs); err != nil {
		return err
	}
	if err := refusedOr(o.follows(ctx, theirs)); err != nil {
		return err
	}
	if err := refusedOr(o.reads(ctx, theirs)); err != nil {
		return err
	}
	if err := d.suspends(ctx, n, o); err != nil {
		return err
	}

	// And the other way round.
	if err := refusedOr(o.changes(ctx, ours)); err != nil {
		return err
	}
	if err := n.follows(ctx, ours); err != nil {
		return err
	}
	late, err := o.makes(ctx)
	if err := refusedOr(err); err != nil {
		return err
	}
	if err == nil {
		d.made = append(d.made, late)
	}
	if err := n.readsAll(ctx, d.made); err != nil {
		return err
	}
	if err := errors.Join(o.stop(), n.stop()); err != nil {
		return err
	}
	return d.comesBack(ctx)
}

// takesTurns runs them one after the other, on a store that one process has open.
func (d *deployment) takesTurns(ctx context.Context) error {
	o, err := d.begins(ctx, d.old)
	if err != nil {
		return err
	}
	if err := o.stop(); err != nil {
		return err
	}
	n, err := d.begins(ctx, d.now)
	if err != nil {
		return err
	}
	if err := errors.Join(n.changes(ctx, d.made[0]), n.stop()); err != nil {
		return err
	}
	return d.comesBack(ctx)
}

// begins starts a program, which reads what there is, and makes goods of its own. Neither
// may be refused: the old one made the store, and the new one must be able to follow.
func (d *deployment) begins(ctx context.Context, v *version) (*side, error) {
	s, err := v.begin(ctx, d.at)
	if err != nil {
		return nil, err
	}
	if err := s.readsAll(ctx, d.made); err != nil {
		return nil, err
	}
	g, err := s.makes(ctx)
	d.made = append(d.made, g)
	return s, err
}

// comesBack starts the old program on what the new one has left, and the new one once more.
func (d *deployment) comesBack(ctx context.Context) error {
	o, err := d.old.begin(ctx, d.at)
	if err := refusedOr(err); err != nil {
		return err
	}
	if err == nil {
		if err := refusedOr(o.readsAll(ctx, d.made)); err != nil {
			return err
		}
		if err := refusedOr(o.changes(ctx, d.made[1])); err != nil {
			return err
		}
		if err := o.stop(); err != nil {
			return err
		}
	}
	n, err := d.now.begin(ctx, d.at)
	if err != nil {
		return err
	}
	return errors.Join(n.readsAll(ctx, d.made), n.stop())
}

// suspends disables a subject and an account at one program, after the other has accepted a
// key of theirs. A program that knows neither must not accept what such a state forbids.
func (d *deployment) suspends(ctx context.Context, n, o *side) error {
	for _, way := range []struct {
		what                   string
		issue, disable, enable rolling.Request
	}{
		{
			"a key of a subject",
			rolling.Request{Do: rolling.Issue, Subject: "suspended"},
			rolling.Request{Do: rolling.DisableSubject, Subject: "suspended"},
			rolling.Request{Do: rolling.EnableSubject, Subject: "suspended"},
		},
		{
			"a key of an account",
			rolling.Request{Do: rolling.IssueInAccount, Subject: "suspended", Account: "tenant"},
			rolling.Request{Do: rolling.DisableAccount, Account: "tenant"},
			rolling.Request{Do: rolling.EnableAccount, Account: "tenant"},
		},
	} {
		key, err := n.does(ctx, way.issue)
		if err != nil {
			return err
		}
		if err := refusedOr(o.sees(ctx, way.what, key.Text, rolling.Done, "")); err != nil {
			return err
		}
		disabled, err := n.does(ctx, way.disable)
		if err != nil {
			return err
		}
		if err := refusedOr(o.comes(ctx, way.what, key.Text, disabled.By, says(rolling.Done), says(rolling.Disabled))); err != nil {
			return err
		}
		enabled, err := n.does(ctx, way.enable)
		if err != nil {
			return err
		}
		if err := refusedOr(o.comes(ctx, way.what, key.Text, enabled.By, says(rolling.Disabled), says(rolling.Done))); err != nil {
			return err
		}
	}
	return nil
}

func (s *side) readsAll(ctx context.Context, made []*goods) (refused error) {
	for _, g := range made {
		err := s.reads(ctx, g)
		if refused = cmp.Or(refused, err); refusedOr(err) != nil {
			return fmt.Errorf("of the goods of %s: %w", g.maker, err)
		}
	}
	return refused
}
