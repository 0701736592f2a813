package index

import (
	"fmt"
	"os"
)

// Relieve is Update for a change after which space is freed, such as the removal of what files hold: it
// goes on where Update refuses, down to what the engine needs to live, and gives up the ballast for that.
// A later Update takes the ballast back when there is plenty of space. It has Update's errors.
func (db *DB) Relieve(change func(tx *Tx) error) error { return db.update(db.relief, change) }

// relief returns an error unless a Relieve may write.
func (db *DB) relief() error {
	free, err := db.free(db.dir)
	if err != nil {
		return fmt.Errorf("read free space: %w", err)
	}
	if free >= Reserve {
		return db.room()
	}
	if info, err := os.Stat(db.ballast()); free < leastToOpen && err == nil && info.Size() > 0 {
		db.log.Warn("disk full: index gives up its ballast, so that space can be freed", "dir", db.dir, "free", free)
		if err := os.Truncate(db.ballast(), 0); err != nil {
			return fmt.Errorf("give up ballast: %w", err)
		}
		if free, err = db.free(db.dir); err != nil {
			return fmt.Errorf("read free space: %w", err)
		}
	}
	if free < leastToOpen {
		return errFull(free, leastToOpen)
	}
	return nil
}
