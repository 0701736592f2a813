package access

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// MaxAudit bounds the audit log, in entries: some 100 MB. Beyond it the oldest entry goes.
const MaxAudit = 500_000

// maxObject bounds the text of an entry's fields that come from a request, in bytes.
const maxObject = 500

// Action is what an audit entry tells of.
type Action string

// The actions that are audited.
const (
	ActionLogin           Action = "login"
	ActionLoginFailed     Action = "login-failed"
	ActionLogout          Action = "logout"
	ActionSiteAdd         Action = "site-add"
	ActionSiteRevoke      Action = "site-revoke"
	ActionSiteApprove     Action = "site-approve"
	ActionSiteRefuse      Action = "site-refuse"
	ActionSiteDenied      Action = "site-denied" // a site's node asked for what is not its to ask
	ActionQlogStart       Action = "qlog-start"  // of a site's link
	ActionQlogStop        Action = "qlog-stop"
	ActionAuthorityRotate Action = "authority-rotate"
	ActionRetrievalCreate Action = "retrieval-create"
	ActionRetrievalCancel Action = "retrieval-cancel"
	ActionLockCreate      Action = "lock-create"
	ActionLockRemove      Action = "lock-remove"
	ActionPlay            Action = "play"
	ActionDownload        Action = "download"
	ActionUserSet         Action = "user-set"
	ActionUserRemove      Action = "user-remove"
)

// Entry is a line of the audit log: who did what, from where, to what.
type Entry struct {
	At      time.Time `json:"at"` // set by Record
	User    string    `json:"user"`
	Address string    `json:"address"`
	Action  Action    `json:"action"`
	Object  string    `json:"object,omitempty"`

	Played branchline.Spans `json:"played,omitempty"` // set by RecordPlay
}

const auditPrefix = "access/audit/"

func auditKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte(auditPrefix), n) }

func (s *Store) findLastAudit() error {
	return s.db.View(func(tx *index.Tx) error {
		for key := range tx.ScanReverse([]byte(auditPrefix), nil) {
			if len(key) != len(auditPrefix)+8 {
				return fmt.Errorf("read audit key %q: %w", key, branchline.ErrInvalid)
			}
			s.last = binary.BigEndian.Uint64(key[len(auditPrefix):])
			break
		}
		return nil
	})
}

// Record appends an entry, with the time of day. What is audited is recorded first and done
// afterwards, and not done if it cannot be recorded.
func (s *Store) Record(e Entry) error {
	e.At, e.User, e.Object = s.clock.Now(), clip(e.User), clip(e.Object)
	n := s.nextAudit()
	if err := s.db.Update(func(tx *index.Tx) error { return putAudit(tx, n, e) }); err != nil {
		return fmt.Errorf("record audit entry: %w", err)
	}
	return nil
}

// putAudit writes entry n and removes the one that goes for it.
func putAudit(tx *index.Tx, n uint64, e Entry) error {
	value, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if n > MaxAudit {
		if err := tx.Delete(auditKey(n - MaxAudit)); err != nil {
			return err
		}
	}
	return tx.Set(auditKey(n), value)
}

func (s *Store) nextAudit() uint64 {
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	s.last++
	return s.last
}

// Audit returns the newest entries, newest first, at most limit.
func (s *Store) Audit(limit int) ([]Entry, error) {
	var entries []Entry
	err := s.db.View(func(tx *index.Tx) error {
		for _, value := range tx.ScanReverse([]byte(auditPrefix), nil) {
			if len(entries) >= limit {
				break
			}
			var e Entry
			if err := json.Unmarshal(value, &e); err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return entries, nil
}

func clip(text string) string { return text[:min(len(text), maxObject)] }
