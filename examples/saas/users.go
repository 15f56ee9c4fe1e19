package main

import (
	"encoding/json"
	"errors"
	"fmt"
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
	// nobody is what the password of an unknown user is compared with, so that the time of a
	// login does not tell who is a user.
	nobody []byte
	mu     sync.Mutex
	of     map[fob.Account]map[string]user // guarded by mu
}

func openUsers(path string) (*users, error) {
	u := &users{path: path, checks: make(chan struct{}, 2), of: map[fob.Account]map[string]user{}}
	nobody, err := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	u.nobody = nobody
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	return u, errors.Join(err, json.Unmarshal(text, &u.of))
}

// put adds a user, or gives one another role and password.
func (u *users) put(who fob.Subject, role, password string) error {
	if len(password) < 8 {
		return fmt.Errorf("%w: a password has at least 8 bytes", fob.ErrInvalid)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil { // longer than 72 bytes
		return fmt.Errorf("%w: %w", fob.ErrInvalid, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[who.Account] == nil {
		u.of[who.Account] = map[string]user{}
	}
	u.of[who.Account][who.Name] = user{Role: role, Hash: hash}
	return u.save()
}

// remove removes a user, who need not be there.
func (u *users) remove(who fob.Subject) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.of[who.Account], who.Name)
	return u.save()
}

// save writes the file, the old one or the new one, never a part. The caller holds mu.
func (u *users) save() error {
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
		one.Hash = u.nobody
	}
	u.checks <- struct{}{}
	defer func() { <-u.checks }()
	right := bcrypt.CompareHashAndPassword(one.Hash, []byte(password)) == nil
	return one, known && right
}
