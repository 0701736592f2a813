// Package evidence keeps the evidence locks that operators place at a hub: over the hub's own copies, and
// at the site for what is only there.
//
// What always holds:
//
//   - A lock is on stable storage before Create returns, and the hub's own store has it by then: from that
//     moment on no copy here is removed that it covers, nor one that arrives later.
//   - What the site is to do is kept until the site has done it, over restarts and outages: it is told when it
//     is linked, and again when it turns out to have forgotten. What it refuses is shown with its words, and
//     asked again with every link and from time to time.
//   - A lock that was taken off is kept, as such, until the site has taken it off too. One that has ended by
//     its date is shown for [KeepEnded].
//   - The database is the intent and the store what was done. A store that knows of a lock of which the
//     database does not has it from a database that was lost, so that lock counts as intended.
package evidence
