package index

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/branchline-video/branchline"
)

// fewWrites is how many keys updates that share a commit may change before the next one waits for another:
// far from the engine's limit for one commit.
const fewWrites = 500

// update is one call of Update, waiting for its commit.
type update struct {
	room   func() error
	change func(tx *Tx) error
	alone  bool          // it shares its commit with no other
	done   chan struct{} // closed when err is set
	err    error
}

// update makes the change in the next commit. Whoever has the turn commits for all that wait, so that a
// sync, which takes long while others write, is paid once.
func (db *DB) update(room func() error, change func(tx *Tx) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.calls.Done()
	u := &update{room: room, change: change, done: make(chan struct{})}
	db.mu.Lock()
	db.waiting = append(db.waiting, u)
	db.mu.Unlock()
	select {
	case <-u.done:
		return u.err
	case db.turn <- struct{}{}:
	}
	defer func() { <-db.turn }()
	for {
		select {
		case <-u.done:
			return u.err
		default:
			db.commit()
		}
	}
}

// commit takes updates in the order in which they came, at least one, and commits them together. The caller
// has the turn, and there are some.
func (db *DB) commit() {
	txn := db.db.NewTransaction(true)
	defer func() { txn.Discard() }()
	var sharing []*update
	var made []write
	for {
		u := db.next(len(sharing) == 0)
		if u == nil {
			break
		}
		tx := &Tx{db: db, txn: txn}
		err := u.run(tx)
		if err == nil {
			sharing, made = append(sharing, u), append(made, tx.log...)
			if u.alone || len(made) >= fewWrites {
				break
			}
			continue
		}
		if len(tx.log) > 0 { // what it wrote is taken back
			txn.Discard()
			txn = db.db.NewTransaction(true)
			if lost := again(txn, made); lost != nil {
				u.end(err)
				endAll(sharing, lost)
				return
			}
		}
		if errors.Is(err, branchline.ErrTooLarge) && len(sharing) > 0 {
			db.postpone(u)
			break
		}
		u.end(err)
	}
	err := txn.Commit()
	if err != nil {
		err = fmt.Errorf("commit to index: %w", err)
	}
	endAll(sharing, err)
}

func endAll(all []*update, err error) {
	for _, u := range all {
		u.end(err)
	}
}

// next takes the first waiting update, unless that has to be alone and is not the first of its commit.
func (db *DB) next(first bool) *update {
	db.mu.Lock()
	defer db.mu.Unlock()
	if len(db.waiting) == 0 || db.waiting[0].alone && !first {
		return nil
	}
	u := db.waiting[0]
	db.waiting = db.waiting[1:]
	return u
}

// postpone makes the update the first of the next commit, and its only one.
func (db *DB) postpone(u *update) {
	u.alone = true
	db.mu.Lock()
	defer db.mu.Unlock()
	db.waiting = append([]*update{u}, db.waiting...)
}

// run calls the change if there is room for it.
func (u *update) run(tx *Tx) error {
	if err := u.room(); err != nil {
		return fmt.Errorf("update index: %w", err)
	}
	if err := u.change(tx); err != nil {
		return err
	}
	return tx.err
}

func (u *update) end(err error) {
	u.err = err
	close(u.done)
}

// again makes changes that were made before.
func again(txn *badger.Txn, made []write) error {
	for _, w := range made {
		if err := w.to(txn); err != nil {
			return writeError(err)
		}
	}
	return nil
}
