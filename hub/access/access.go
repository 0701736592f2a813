package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

// The errors of logging in and of sessions.
var (
	// ErrCredentials: there is no such user, or the password is wrong; which of them is not told.
	ErrCredentials = errors.New("wrong user or password")
	// ErrNoSession: the token belongs to no session, or to one that has ended.
	ErrNoSession = errors.New("no session")
)

// Throttled is the error of a login that is refused unseen because too many before it failed.
type Throttled struct {
	After time.Duration // when to try again; above zero
}

func (t Throttled) Error() string {
	return fmt.Sprintf("too many failed logins, try again in %v", t.After.Round(time.Second))
}

// Administrator is the name of the user that the first Open makes.
const Administrator = "admin"

// MaxUsers bounds the number of users: a big operations centre. Beyond that a directory is wanted.
const MaxUsers = 1000

// Role says what a user may do. A role includes those before it.
type Role string

// The roles.
const (
	RoleViewer        Role = "viewer"        // sees and plays
	RoleOperator      Role = "operator"      // also retrieves, downloads and locks as evidence
	RoleAdministrator Role = "administrator" // also changes sites and users
)

func (r Role) rank() int {
	return slices.Index([]Role{RoleViewer, RoleOperator, RoleAdministrator}, r)
}

// Includes reports whether a user with role r may do what needs role needed.
func (r Role) Includes(needed Role) bool { return r.rank() >= 0 && r.rank() >= needed.rank() }

// User is someone who may log in.
type User struct {
	Name string `json:"-"`
	Role Role   `json:"role"`
	Hash string `json:"hash"` // of the password, in the PHC string format
}

// Store holds users, sessions and the audit log in a database that it shares with others: all its
// keys begin with "access/". It may be used concurrently.
type Store struct {
	db     *index.DB
	clock  clock.Clock
	log    *slog.Logger
	hasher hasher
	gate   gate

	auditMu sync.Mutex // orders appends to the audit log
	last    uint64     // number of the newest audit entry
	plays   map[playKey]play
}

// Options are the surroundings of a Store.
type Options struct {
	Clock  clock.Clock
	Logger *slog.Logger
}

// Open returns the store in db, which the caller keeps open for as long. When there is no user yet it
// makes the administrator and returns the password, which is told here and never again.
func Open(db *index.DB, opt Options) (*Store, string, error) {
	s := &Store{
		db: db, clock: opt.Clock, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)), hasher: newHasher(),
	}
	if err := s.findLastAudit(); err != nil {
		return nil, "", fmt.Errorf("open access store: %w", err)
	}
	users, err := s.Users()
	if err != nil {
		return nil, "", fmt.Errorf("open access store: %w", err)
	}
	if len(users) > 0 {
		return s, "", nil
	}
	password, err := s.SetUser(context.Background(), Administrator, RoleAdministrator)
	if err != nil {
		return nil, "", fmt.Errorf("open access store: %w", err)
	}
	return s, password, nil
}

const userPrefix = "access/user/"

func userKey(name string) []byte { return []byte(userPrefix + name) }

// Users lists the users, sorted by name.
func (s *Store) Users() ([]User, error) {
	var users []User
	err := s.db.View(func(tx *index.Tx) (err error) {
		users, err = readUsers(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return users, nil
}

func readUsers(tx *index.Tx) ([]User, error) {
	var users []User
	for key, value := range tx.Scan([]byte(userPrefix), nil) {
		u := User{Name: strings.TrimPrefix(string(key), userPrefix)}
		if err := json.Unmarshal(value, &u); err != nil {
			return nil, fmt.Errorf("read user %q: %w", u.Name, err)
		}
		users = append(users, u)
	}
	return users, nil
}

// SetUser adds a user, or gives an existing one a new role and password and ends its sessions. It
// returns the password, which it makes and does not keep. It wraps branchline.ErrInvalid for a bad
// name or role, ErrTooLarge at MaxUsers, and ErrDenied when the last administrator would be lost.
func (s *Store) SetUser(ctx context.Context, name string, role Role) (string, error) {
	if err := branchline.SiteID(name).Check(); err != nil || strings.Contains(name, ".") || role.rank() < 0 {
		return "", fmt.Errorf("set user %.80q with role %.80q: a name is 1 to %d of a-z, 0-9 and inner '-': %w",
			name, role, branchline.MaxLabel, branchline.ErrInvalid)
	}
	password := rand.Text()
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return "", fmt.Errorf("set user %s: %w", name, err)
	}
	u := User{Role: role, Hash: hash}
	value, err := json.Marshal(u)
	if err != nil {
		return "", fmt.Errorf("set user %s: %w", name, err)
	}
	err = s.change(name, func(tx *index.Tx, users []User) error {
		if len(users) >= MaxUsers && !slices.ContainsFunc(users, named(name)) {
			return fmt.Errorf("there are %d users already: %w", len(users), branchline.ErrTooLarge)
		}
		if role != RoleAdministrator && lastAdministrator(users, name) {
			return fmt.Errorf("it is the last administrator: %w", branchline.ErrDenied)
		}
		return tx.Set(userKey(name), value)
	})
	if err != nil {
		return "", fmt.Errorf("set user %s: %w", name, err)
	}
	return password, nil
}

// RemoveUser removes a user and ends its sessions. It wraps branchline.ErrNotFound for an unknown
// user and ErrDenied for the last administrator.
func (s *Store) RemoveUser(name string) error {
	err := s.change(name, func(tx *index.Tx, users []User) error {
		if !slices.ContainsFunc(users, named(name)) {
			return branchline.ErrNotFound
		}
		if lastAdministrator(users, name) {
			return fmt.Errorf("it is the last administrator: %w", branchline.ErrDenied)
		}
		return tx.Delete(userKey(name))
	})
	if err != nil {
		return fmt.Errorf("remove user %.80q: %w", name, err)
	}
	return nil
}

// change runs f, which changes the user, and ends the user's sessions, both or neither.
func (s *Store) change(name string, f func(tx *index.Tx, users []User) error) error {
	return s.db.Update(func(tx *index.Tx) error {
		users, err := readUsers(tx)
		if err != nil {
			return err
		}
		if err := f(tx, users); err != nil {
			return err
		}
		return endSessions(tx, func(o session) bool { return o.User == name })
	})
}

func named(name string) func(User) bool { return func(u User) bool { return u.Name == name } }

func lastAdministrator(users []User, name string) bool {
	return !slices.ContainsFunc(users, func(u User) bool {
		return u.Role == RoleAdministrator && u.Name != name
	})
}
