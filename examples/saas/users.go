package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/fobkit/fob"
	"golang.org/x/crypto/bcrypt"
)

// user is somebody who may log in. The service keeps a hash of the password.
type user struct {
	Role string
	Hash []byte
}

// users are the users of each tenant by name, in a file that only this process writes. A
// real service has them in a table.
type users struct {
	path string
	// checks has room for as many passwords as may be checked at once: each takes a core for
	// some 60 ms, and a flood of logins is not to take them all.
	checks chan struct{}
	mu     sync.Mutex
	of     map[fob.Account]map[string]user // guarded by mu
}

// nobody is what the password of an unknown user is compared with, so that the time of a
// login does not tell who is a user. It has the cost of the others.
const nobody = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"

func openUsers(path string) (*users, error) {
	u := &users{path: path, checks: make(chan struct{}, 2), of: map[fob.Account]map[string]user{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	return u, errors.Join(err, json.Unmarshal(text, &u.of))
}

// put adds or changes a user; nil removes one. The file is the old one or the new one.
func (u *users) put(who fob.Subject, one *user) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[who.Account] == nil {
		u.of[who.Account] = map[string]user{}
	}
	if delete(u.of[who.Account], who.Name); one != nil {
		u.of[who.Account][who.Name] = *one
	}
	text, err := json.Marshal(u.of)
	if err == nil {
		err = os.WriteFile(u.path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(u.path+".new", u.path)
	}
	return err
}

func (u *users) get(who fob.Subject) (user, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one, ok := u.of[who.Account][who.Name]
	return one, ok
}

// login returns the user with this password.
func (u *users) login(who fob.Subject, password string) (user, bool) {
	one, known := u.get(who)
	if !known {
		one.Hash = []byte(nobody)
	}
	u.checks <- struct{}{}
	defer func() { <-u.checks }()
	right := bcrypt.CompareHashAndPassword(one.Hash, []byte(password)) == nil
	return one, known && right
}
