// Package segstore keeps recorded video on local disk: one file for each sealed segment, files that
// grow or are held in part, and an index that finds segments by stream and time.
//
// What always holds:
//
//   - The files are the truth and the index is a shortcut to them. A sealed segment proves and
//     describes itself; gaps, cameras, runs, locks and holds, which have no file of their own, stand in a
//     journal. An index that is lost or damaged is set aside and made again from these, under a new epoch, so
//     that followers of the change feed notice and start again; recording goes on meanwhile.
//   - Opening takes a time that does not grow with what is kept. It does what recording needs; the rest,
//     verifying the index and comparing it with every file, goes on in the background ([Store.Settled]).
//   - Acknowledged means durable. Sealing writes the footer, syncs the file, renames it to its final
//     place, syncs the directories, makes the index entry, and only then tells anyone. Data of files
//     that still grow is synced at least once a second, grouped over all streams of a volume.
//   - There is one write path. The edge, which makes segments, puts fragments in order and seals at
//     once; a hub puts any fragments in any order, from several writers at a time, and whichever
//     call brings the last missing piece seals. Both end in the same bytes.
//   - Nothing unverified is accepted: a fragment is held against its hash when it is put, and a
//     footer against its hash, its signature and all fragments held before anything is sealed. What a replica
//     held in part since before the store was opened, or left to the disk, is read again before it is sealed.
//   - Nothing unverified is given out: a fragment is read whole and held against its hash before any of its
//     bytes leave, or against its checksum alone if who gets it verifies the hash. One that is damaged in a
//     sealed file makes that file so; one that a replica holds in part is held no longer, and may be put again.
//   - A store may encrypt what it keeps (Options.Keys). That is between it and the disk: what is put and
//     fetched is in plain, and has one hash for its whole life. A missing key is no damage, and needed only
//     for the fragments, not to find, seal or rebuild.
//   - After a failed sync a file is never trusted again: it takes no more data and is not sealed
//     until the store is opened anew, which reads back what is really there. Its volume is suspect.
//   - A store may have several volumes (Options.Volumes). Streams are spread over them; one whose volume is
//     full, slow to sync, suspect or away goes on with a new segment on another. A volume that is away is waited
//     for, and nothing on it counts as lost.
//   - At the origin segments and gaps together cover the time since a camera was added, without overlap. What
//     the process before this one left unexplained is found at opening and told as its stop.
//   - While the volume is almost full no segment is begun or goes on; all else works, and recording
//     goes on with space.
//   - A sealed file that is found damaged, when asked for or by the scrub, is moved to quarantine and
//     announced as removed because the disk failed; at the origin a gap takes its place in the same
//     update. A file that is away, of a newer version or signed by a key that is not trusted is not damaged.
//     A whole copy of what was lost comes back by Restore or by way of restore/, verified, and takes the
//     place of the gap.
//   - A thinned segment keeps its key fragments, footer, size and hash. Its file is written anew in trash/
//     and takes the place of the old one by a rename. What was left out is gone for who asks.
//   - A removed file leaves by way of trash/, in this order: rename, sync, index, unlink.
//   - Retention, decided by package retain, runs by itself: every minute, and within a second when the
//     volume is short of space. Without rules it keeps all that there is room for. What it removes leaves
//     a gap with its cause, in the same update, so that segments and gaps together cover a stream's time
//     without an overlap. It works on a disk on which nothing else does any more. What an evidence lock
//     touches stays, from the return of Lock on; locks and holds outlive the index.
//   - Any number of segments may stay in part at a replica. Those that nobody works with are on disk
//     alone; memory and limits are for those that are written or read.
//
// What a crash leaves: at the origin of segments (Options.Signer set) a growing file is cut back to
// its last whole fragment by the checksum boxes, or if it is encrypted to those that its sidecar lists,
// sealed and signed as Cut. At a replica a partial segment goes on with the fragments that its sidecar
// lists, which are those that had been synced.
//
// The layout of a store's directory:
//
//	lock                                      held by the one process that has the store open
//	journal                                   gaps, cameras, runs, locks and holds, append-only
//	store                                     the store's identifier, which its volumes carry
//	volumes                                   the other volumes that the store ever had, a path in each line
//	index/                                    see package index
//	growing/<stream>/<id>.mp4, <id>.part      growing and partial segments with their sidecars
//	segments/<stream>/<yyyymmdd>/<id>.mp4     sealed segments by the day (UTC) of their start
//	trash/                                    on the way out
//	restore/                                  copies of lost segments, to be taken in
//	quarantine/                               differing and damaged copies, kept until somebody deletes them
//
// and of a volume the last five of these, with the file volume by which it is recognised, and a lock.
package segstore
