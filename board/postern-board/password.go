package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"postern/internal/namedfile"
)

// Bounds of a password file, and of what a browser may send as a password.
const (
	maxPasswordFile = 1 << 20 // bytes
	maxCost         = 14      // a second or so; each password that is not known yet costs that
	maxPassword     = 72      // bytes, as bcrypt takes them
	guessing        = 8       // passwords that wait to be looked at; more are told to come again
)

// passwords are those of a file. A password that was right once is known from then on: to look at one takes a
// tenth of a second, on purpose.
type passwords struct {
	hashes  map[string][]byte // by user
	nobody  []byte            // hash for users that are not there, so that they take as long
	turns   chan struct{}     // who looks, one at a time
	waiting chan struct{}

	secret [32]byte
	mu     sync.Mutex
	known  map[[32]byte]bool // one for each user at most
}

// readPasswords reads lines of USER:BCRYPT.
func readPasswords(file string) (*passwords, error) {
	text, info, err := namedfile.Read(file, maxPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password-file: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("password-file: others may write to %q", file)
	}
	p := &passwords{hashes: map[string][]byte{}, turns: make(chan struct{}, 1), waiting: make(chan struct{}, guessing), known: map[[32]byte]bool{}}
	cost, number := bcrypt.MinCost, 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, _ := strings.Cut(line, ":")
		c, err := bcrypt.Cost([]byte(hash))
		switch {
		case user == "" || err != nil:
			return nil, fmt.Errorf("password-file: %s:%d: is not USER:BCRYPT; htpasswd -B makes such lines", file, number)
		case c > maxCost:
			return nil, fmt.Errorf("password-file: %s:%d: cost %d is more than %d", file, number, c, maxCost)
		case p.hashes[user] != nil:
			return nil, fmt.Errorf("password-file: %s:%d: user %q is there twice", file, number, user)
		}
		p.hashes[user], cost = []byte(hash), max(cost, c)
	}
	if len(p.hashes) == 0 {
		return nil, fmt.Errorf("password-file: no user in %q", file)
	}
	if p.nobody, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), cost); err != nil {
		return nil, fmt.Errorf("password-file: %w", err)
	}
	_, err = rand.Read(p.secret[:])
	return p, err
}

// errBusy says that too many passwords wait to be looked at.
var errBusy = errors.New("too many passwords at once")

// right says whether the password is that of the user.
func (p *passwords) right(ctx context.Context, user, password string) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	key := p.key(user, password)
	if p.isKnown(key) {
		return true, nil
	}
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return false, errBusy
	}
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	hash, there := p.hashes[user]
	if !there {
		hash = p.nobody
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !there {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[key] = true
	return true, nil
}

func (p *passwords) isKnown(key [32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[key]
}

// key stands for a user and a password, without telling them.
func (p *passwords) key(user, password string) (key [32]byte) {
	mac := hmac.New(sha256.New, p.secret[:])
	fmt.Fprintf(mac, "%d:%s%s", len(user), user, password)
	mac.Sum(key[:0])
	return key
}
