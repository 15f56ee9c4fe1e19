package rolling_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/fobkit/fob/internal/fleettest/rolling"
)

// goods are what a program has made, in every state that both versions know.
type goods struct {
	maker    string
	subject  string
	tag      string
	tagged   []string // IDs of the keys with tag
	unlisted []string // those of them that only a program without labels lists
	all      []string // IDs of the keys of subject
	items    []item
	refresh  string // a secret, the newest
}

// item is a credential, what a verification says of it, and before it was changed said.
type item struct {
	what, id, text, word, scopes string

	was string // if it was changed
	by  int64  // from when on the change holds everywhere
}

const scope = "orders:read"

// maker makes goods in a program. After an error it does nothing.
type maker struct {
	ctx context.Context
	s   *side
	g   *goods
	err error
}

func (m *maker) do(req rolling.Request) (r rolling.Reply) {
	if m.err == nil {
		r, m.err = m.s.does(m.ctx, req)
	}
	return r
}

func (m *maker) key(what, word string) item {
	r := m.do(rolling.Request{Do: rolling.Issue, Subject: m.g.subject, Scope: scope})
	m.g.all = append(m.g.all, r.ID)
	return m.keep(item{what: what, id: r.ID, text: r.Text, word: word, scopes: scope})
}

func (m *maker) keep(i item) item {
	i.what += " of " + m.g.maker
	m.g.items = append(m.g.items, i)
	return i
}

// makes makes goods.
func (s *side) makes(ctx context.Context) (*goods, error) {
	g := &goods{maker: s.of.name, subject: "app-" + rand.Text(), tag: "tag-" + rand.Text()}
	m := &maker{ctx: ctx, s: s, g: g}

	m.key("a key", rolling.Done)
	if m.err == nil {
		m.err = s.tags(ctx, g)
	}
	m.ends(rolling.Request{Do: rolling.Revoke, ID: m.key("a revoked key", rolling.Done).id}, rolling.Revoked)
	m.ends(rolling.Request{Do: rolling.Disable, ID: m.key("a disabled key", rolling.Done).id}, rolling.Disabled)

	enabled := m.key("a key that was enabled again", rolling.Done)
	m.ends(rolling.Request{Do: rolling.Disable, ID: enabled.id}, rolling.Disabled)
	m.ends(rolling.Request{Do: rolling.Enable, ID: enabled.id}, rolling.Done)

	r := m.do(rolling.Request{Do: rolling.Issue, Subject: g.subject, Scope: scope})
	m.do(rolling.Request{Do: rolling.Update, ID: r.ID, Scope: "orders:write"})
	m.keep(item{what: "an updated key", id: r.ID, text: r.Text, word: rolling.Done, scopes: "orders:write"})
	g.all = append(g.all, r.ID)

	old := m.key("a rotated key in its overlap", rolling.Done)
	r = m.do(rolling.Request{Do: rolling.Rotate, ID: old.id})
	m.keep(item{what: "the successor of a key", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	g.all = append(g.all, r.ID)

	text := "legacy-" + rand.Text()
	r = m.do(rolling.Request{Do: rolling.Import, Subject: g.subject, Text: text, Scope: scope})
	m.keep(item{what: "an imported key", id: r.ID, text: text, word: rolling.Done, scopes: scope})
	g.all = append(g.all, r.ID)

	gone := "gone-" + rand.Text()
	r = m.do(rolling.Request{Do: rolling.Issue, Subject: gone})
	m.keep(item{what: "a key of a revoked subject", id: r.ID, text: r.Text, word: rolling.Done})
	m.ends(rolling.Request{Do: rolling.RevokeSubject, Subject: gone}, rolling.Revoked)
	r = m.do(rolling.Request{Do: rolling.Issue, Subject: gone})
	m.keep(item{what: "a key that a revoked subject was given later", id: r.ID, text: r.Text, word: rolling.Done, scopes: ""})

	m.sessions()
	return g, m.err
}

// sessions makes tokens that go on, ended, and lost the key that they come from.
func (m *maker) sessions() {
	parent := m.key("a key with sessions", rolling.Done)
	r := m.do(rolling.Request{Do: rolling.Exchange, Text: parent.text, Scope: scope})
	m.keep(item{what: "a token", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	r = m.do(rolling.Request{Do: rolling.Refresh, Text: r.Next})
	m.keep(item{what: "a refreshed token", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	m.g.refresh = r.Next

	r = m.do(rolling.Request{Do: rolling.Exchange, Text: parent.text, Scope: scope})
	m.keep(item{what: "a token of a revoked session", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	m.ends(rolling.Request{Do: rolling.Revoke, ID: r.Session}, rolling.Revoked)

	r = m.do(rolling.Request{Do: rolling.Exchange, Text: parent.text, Scope: scope})
	m.keep(item{what: "a revoked token", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	m.ends(rolling.Request{Do: rolling.Revoke, ID: r.ID}, rolling.Revoked)

	parent = m.key("a revoked key with a session", rolling.Done)
	r = m.do(rolling.Request{Do: rolling.Exchange, Text: parent.text, Scope: scope})
	m.keep(item{what: "a token of a revoked key", id: r.ID, text: r.Text, word: rolling.Done, scopes: scope})
	m.ends(rolling.Request{Do: rolling.Revoke, ID: parent.id}, rolling.Revoked)
	key := &m.g.items[len(m.g.items)-2]
	key.was, key.word, key.by = rolling.Done, rolling.Revoked, m.g.items[len(m.g.items)-1].by
}

// ends changes what was made last, and remembers by when others have to know.
func (m *maker) ends(req rolling.Request, word string) {
	r := m.do(req)
	i := &m.g.items[len(m.g.items)-1]
	i.was, i.word, i.by = i.word, word, r.By
}

// reads looks at all of the goods, which others may have made, and continues their session.
// The error is errRefused if all that was not refused was right.
func (s *side) reads(ctx context.Context, g *goods) error {
	refused := s.follows(ctx, g)
	if err := refusedOr(refused); err != nil {
		return err
	}
	for _, i := range g.items {
		err := s.sees(ctx, i.what, i.text, i.word, i.scopes)
		if refused = cmp.Or(refused, err); refusedOr(err) != nil {
			return err
		}
	}
	tagged := slices.Clone(g.tagged)
	if !s.of.noLabels {
		tagged = slices.DeleteFunc(tagged, func(id string) bool { return slices.Contains(g.unlisted, id) })
	}
	for _, err := range []error{
		s.lists(ctx, rolling.Request{Do: rolling.List, Subject: g.subject}, g.all),
		s.lists(ctx, rolling.Request{Do: rolling.List, Tag: g.tag}, tagged),
	} {
		if refused = cmp.Or(refused, err); refusedOr(err) != nil {
			return err
		}
	}
	r, err := s.does(ctx, rolling.Request{Do: rolling.Refresh, Text: g.refresh})
	if err != nil {
		return fmt.Errorf("the session of %s: %w", g.maker, err)
	}
	g.refresh = r.Next
	return refused
}

// changes revokes every second of the goods of another that is accepted, enables what is
// disabled, and issues one more key with the tag.
func (s *side) changes(ctx context.Context, g *goods) error {
	for n := range g.items {
		i := &g.items[n]
		req, word := rolling.Request{Do: rolling.Revoke, ID: i.id}, rolling.Revoked
		switch {
		case i.word == rolling.Disabled:
			req.Do, word = rolling.Enable, rolling.Done
		case i.word != rolling.Done || n%2 == 0:
			continue
		}
		r, err := s.does(ctx, req)
		if err != nil {
			return fmt.Errorf("%s: %w", i.what, err)
		}
		i.what, i.was, i.word, i.by = i.what+", changed by "+s.of.name, i.word, word, r.By
	}
	return s.tags(ctx, g)
}

// tags issues a key with the tag of the goods.
func (s *side) tags(ctx context.Context, g *goods) error {
	r, err := s.does(ctx, rolling.Request{Do: rolling.Issue, Subject: g.subject, Tag: g.tag})
	if err != nil {
		return err
	}
	g.tagged, g.all = append(g.tagged, r.ID), append(g.all, r.ID)
	if s.of.noLabels {
		g.unlisted = append(g.unlisted, r.ID)
	}
	return nil
}

// follows waits until each change of another holds here, which must be so in time. The
// error is errRefused if all that was not refused was right.
func (s *side) follows(ctx context.Context, g *goods) (refused error) {
	for _, i := range g.items {
		if i.was == "" {
			continue
		}
		err := s.comes(ctx, i.what, i.text, i.by, says(i.was), says(i.word))
		if refused = cmp.Or(refused, err); refusedOr(err) != nil {
			return err
		}
	}
	return refused
}
