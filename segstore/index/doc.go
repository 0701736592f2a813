// Package index is a small durable ordered key-value store, for what can be made again from
// elsewhere or is worth little space: the index of segments, a hub's catalog, its queue, its users.
// It is the only user of Badger and keeps that engine's dangers in here.
//
// What always holds:
//
//   - A change is atomic and on stable storage when Update returns.
//   - Updates happen one after another; a View sees all changes that returned before it began and
//     none of a later one.
//   - The engine never meets a full disk, on which it would die: Update refuses to write while less
//     than a reserve is free, and Close then leaves the engine's memory to its log. On a full disk Open
//     gives up a ballast file, so that a node starts there and serves what it has; the first Updates
//     after Open may use the reserve.
//   - A damaged database does not stop the process twice: one that cannot be opened, or whose opening
//     was begun several times and never finished, is set aside in damaged/ (the last one is kept) and
//     replaced by an empty one. Fresh then tells the caller to fill it again. Every table is
//     verified at opening and every block when it is read; a damaged log loses its last changes, so
//     a caller that has the truth elsewhere compares.
//
// The layout of the directory: lock, opening (attempts so far), ballast, db/, damaged/.
package index
