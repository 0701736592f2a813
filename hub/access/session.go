package access

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// How long sessions last: idle for a shift, and in use for a week, so that a stolen one dies.
const (
	SessionIdle = 12 * time.Hour
	SessionMax  = 7 * 24 * time.Hour
)

// sessionRenewal is by how much a session's end must move before that is written: a write a quarter
// of an hour instead of one a request.
const sessionRenewal = 15 * time.Minute

// MaxSessions bounds the sessions of a user: the screens of a control room. The one that would end
// first makes room for another.
const MaxSessions = 64

// MaxPassword bounds a password, in bytes.
const MaxPassword = 200

// Attempt is a try to log in.
type Attempt struct {
	User, Password string
	Address        string // from which it comes, without a port
}

// Identity is who makes a request.
type Identity struct {
	User    string
	Role    Role
	Expires time.Time // when the session ends if it is not used; zero for Local
}

// Local is the identity of whoever may open the hub's Unix socket: an administrator without a session.
func Local() Identity { return Identity{User: "local", Role: RoleAdministrator} }

type session struct {
	User    string    `json:"user"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

const sessionPrefix = "access/session/"

func sessionKey(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return []byte(sessionPrefix + hex.EncodeToString(sum[:]))
}

// Login starts a session and returns its token. It takes as long for an unknown user as for a wrong
// password. It wraps ErrCredentials if they are wrong, Throttled if too many before were, and
// branchline.ErrBusy when too many others log in at this moment. Success and failure are audited.
func (s *Store) Login(ctx context.Context, a Attempt) (string, Identity, error) {
	a.User = a.User[:min(len(a.User), branchline.MaxLabel+1)] // longer ones exist no more than this one does
	forgive, wait := s.gate.enter(s.clock.Now(), a.Address, a.User)
	if wait > 0 {
		return "", Identity{}, Throttled{After: wait}
	}
	user, err := s.authenticate(ctx, a)
	if errors.Is(err, ErrCredentials) {
		return "", Identity{}, errors.Join(err, s.Record(Entry{
			User: a.User, Address: a.Address, Action: ActionLoginFailed,
		}))
	}
	forgive()
	if err != nil {
		return "", Identity{}, err
	}
	if err := s.Record(Entry{User: user.Name, Address: a.Address, Action: ActionLogin}); err != nil {
		return "", Identity{}, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	token := base64.RawURLEncoding.EncodeToString(secret)
	now := s.clock.Now()
	o := session{User: user.Name, Created: now, Expires: now.Add(SessionIdle)}
	if err := s.addSession(token, o, user.Hash); err != nil {
		return "", Identity{}, fmt.Errorf("start session of %s: %w", user.Name, err)
	}
	return token, Identity{User: user.Name, Role: user.Role, Expires: o.Expires}, nil
}

func (s *Store) authenticate(ctx context.Context, a Attempt) (User, error) {
	user := User{Name: a.User}
	err := s.db.View(func(tx *index.Tx) error { return getUser(tx, a.User, &user) })
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return User{}, fmt.Errorf("log in: %w", err)
	}
	ok, err := s.hasher.verify(ctx, a.Password[:min(len(a.Password), MaxPassword+1)], user.Hash)
	if err != nil {
		return User{}, fmt.Errorf("log in: %w", err)
	}
	if !ok {
		return User{}, ErrCredentials
	}
	return user, nil
}

func getUser(tx *index.Tx, name string, u *User) error {
	value, err := tx.Get(userKey(name))
	if err != nil {
		return err
	}
	u.Name = name
	return json.Unmarshal(value, u)
}

// addSession stores the session unless the user's password was changed since it was verified, and
// removes sessions that have ended or are too many.
func (s *Store) addSession(token string, o session, hash string) error {
	return s.db.Update(func(tx *index.Tx) error {
		var user User
		if err := getUser(tx, o.User, &user); err != nil || user.Hash != hash {
			return errors.Join(ErrCredentials, err)
		}
		count, oldest := 0, session{Expires: o.Expires}
		err := endSessions(tx, func(other session) bool {
			if other.User == o.User && other.Expires.After(o.Created) {
				count++
				if other.Expires.Before(oldest.Expires) {
					oldest = other
				}
			}
			return !other.Expires.After(o.Created)
		})
		if err != nil {
			return err
		}
		if count >= MaxSessions {
			if err := endSessions(tx, func(other session) bool { return other == oldest }); err != nil {
				return err
			}
		}
		value, err := json.Marshal(o)
		if err != nil {
			return err
		}
		return tx.Set(sessionKey(token), value)
	})
}

// endSessions removes the sessions of which ends says so.
func endSessions(tx *index.Tx, ends func(session) bool) error {
	var keys [][]byte
	for key, value := range tx.Scan([]byte(sessionPrefix), nil) {
		var o session
		if err := json.Unmarshal(value, &o); err != nil || ends(o) {
			keys = append(keys, bytes.Clone(key))
		}
	}
	for _, key := range keys {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// Check returns whose session the token is, with the role that the user has now, and prolongs the
// session. It wraps ErrNoSession if there is none.
func (s *Store) Check(token string) (Identity, error) {
	var o session
	var user User
	key, now := sessionKey(token), s.clock.Now()
	err := s.db.View(func(tx *index.Tx) error {
		value, err := tx.Get(key)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(value, &o); err != nil {
			return err
		}
		return getUser(tx, o.User, &user)
	})
	if errors.Is(err, branchline.ErrNotFound) || err == nil && !now.Before(o.Expires) {
		return Identity{}, ErrNoSession
	}
	if err != nil {
		return Identity{}, fmt.Errorf("check session: %w", err)
	}
	expires := now.Add(SessionIdle)
	if end := o.Created.Add(SessionMax); end.Before(expires) {
		expires = end
	}
	if expires.Sub(o.Expires) >= sessionRenewal {
		if err := s.prolong(key, expires); err != nil {
			return Identity{}, fmt.Errorf("prolong session of %s: %w", o.User, err)
		}
		o.Expires = expires
	}
	return Identity{User: user.Name, Role: user.Role, Expires: o.Expires}, nil
}

// prolong moves the session's end, unless the session was ended in the meantime.
func (s *Store) prolong(key []byte, expires time.Time) error {
	return s.db.Update(func(tx *index.Tx) error {
		value, err := tx.Get(key)
		if errors.Is(err, branchline.ErrNotFound) {
			return ErrNoSession
		}
		if err != nil {
			return err
		}
		var o session
		if err := json.Unmarshal(value, &o); err != nil {
			return err
		}
		o.Expires = expires
		if value, err = json.Marshal(o); err != nil {
			return err
		}
		return tx.Set(key, value)
	})
}

// Logout ends the session of the token. It is no error if there is none.
func (s *Store) Logout(token string) error {
	if err := s.db.Update(func(tx *index.Tx) error { return tx.Delete(sessionKey(token)) }); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}
