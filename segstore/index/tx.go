package index

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"

	"github.com/branchline-video/branchline"
)

// ErrNotFound wraps [branchline.ErrNotFound]: Get was asked for a key that is not there.
var ErrNotFound = fmt.Errorf("key %w", branchline.ErrNotFound)

// Tx is a view of the database at one moment, with the changes made through it on top. It is for the
// one function and goroutine that it was given to, and only until that function returns.
type Tx struct {
	db  *DB
	txn *badger.Txn
	err error   // first failure of a scan
	log []write // what was written
}

// write is a change of a key.
type write struct {
	key, value []byte
	gone       bool
}

func (w write) to(txn *badger.Txn) error {
	if w.gone {
		return txn.Delete(w.key)
	}
	return txn.Set(w.key, w.value)
}

// View calls read with the present state. It returns read's error, or the first failure of a scan.
func (db *DB) View(read func(tx *Tx) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.calls.Done()
	txn := db.db.NewTransaction(false)
	defer txn.Discard()
	tx := &Tx{db: db, txn: txn}
	if err := read(tx); err != nil {
		return err
	}
	return tx.err
}

// Update calls change and makes its changes durable, all of them, or none if it returns an error. Updates
// wait for one another, so change must be quick and must not call Update; those that come together share one
// commit, and then a change that met its limits in such company is called once more, alone. It wraps
// [branchline.ErrUnavailable] and ENOSPC while the disk is too full and [branchline.ErrTooLarge] when one update
// changes more than fits the engine's memory (some thousand keys).
func (db *DB) Update(change func(tx *Tx) error) error { return db.update(db.room, change) }

// Get returns a copy of the value, or an error wrapping [branchline.ErrNotFound].
func (tx *Tx) Get(key []byte) ([]byte, error) {
	item, err := tx.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", tx.damaged(err))
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", tx.damaged(err))
	}
	return value, nil
}

// Set gives key a value. Both slices belong to the transaction from then on.
func (tx *Tx) Set(key, value []byte) error {
	if len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue {
		return fmt.Errorf("set index key of %d bytes to %d bytes: %w", len(key), len(value), branchline.ErrTooLarge)
	}
	return tx.write(write{key: key, value: value})
}

// Delete removes key, also if it is not there. The slice belongs to the transaction from then on.
func (tx *Tx) Delete(key []byte) error { return tx.write(write{key: key, gone: true}) }

func (tx *Tx) write(w write) error {
	if err := w.to(tx.txn); err != nil {
		return writeError(err)
	}
	tx.log = append(tx.log, w)
	return nil
}

// Scan yields the pairs whose key begins with prefix in ascending order of keys, from the first one
// that is not below from. Both slices are valid until the next step. In an Update only one scan may
// run at a time, and it does not see keys set after it began. A failure ends the scan early and is
// returned by View or Update.
func (tx *Tx) Scan(prefix, from []byte) iter.Seq2[[]byte, []byte] {
	return tx.scan(prefix, from, false)
}

// ScanReverse is Scan in descending order, from the last key that is not above from; a nil from
// starts at the last key of the prefix.
func (tx *Tx) ScanReverse(prefix, from []byte) iter.Seq2[[]byte, []byte] {
	if from == nil {
		from = append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, MaxKey-len(prefix))...)
	}
	return tx.scan(prefix, from, true)
}

func (tx *Tx) scan(prefix, from []byte, reverse bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: reverse})
		defer it.Close()
		var key, value []byte
		if !reverse && bytes.Compare(from, prefix) < 0 {
			from = prefix
		}
		for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
			item := it.Item()
			key = item.KeyCopy(key)
			var err error
			if value, err = item.ValueCopy(value); err != nil {
				tx.err = errors.Join(tx.err, fmt.Errorf("scan index: %w", tx.damaged(err)))
				return
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, badger.ErrTxnTooBig):
		return fmt.Errorf("write index: %w: %w", branchline.ErrTooLarge, err)
	}
	return fmt.Errorf("write index: %w", err)
}
