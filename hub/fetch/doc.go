// Package fetch brings recordings from the sites to the hub: what operators request, as jobs, and what
// policies want.
//
// What always holds:
//
//   - A job is stored before Create returns, and its end before it is told. What it has brought is in
//     the hub's segment store, fragment by fragment; that is all its progress, so a restart of either
//     side or a cut link costs at most the fragments that were under way.
//   - Bytes come from the sites by Source.Fetch, only ranges that are not held, each fragment verified
//     against its hash by the store before it counts. A segment whose every fragment is held gets its
//     footer and is sealed by the same store that keeps live recordings.
//   - Nothing counts as done before it is on stable storage.
//   - What went to quarantine here is fetched anew as a whole while its site has it, whatever had brought it.
//     A copy held in part goes there, too, if one of its fragments is not what the site has sealed.
//   - A segment is sealed only as the edge's feed has told it to be durable there, soon after that. A
//     copy that was sealed otherwise is put into quarantine and fetched anew.
//   - At one site only the most urgent class of work runs. A request cancels bulk transfers at once;
//     they go on later behind the last fragment that was put.
//   - While a site is linked it is asked to spare what is wanted from it and not held here, as a lease that
//     outlives the link; what is no longer wanted is released.
//   - Policies have no queue of their own: what is to do follows anew from wants, existence and
//     holdings whenever something changes. After an outage the subtraction has another result, and that
//     is backfill.
//   - Policies take segments as a whole once the edge has sealed them, so that what is kept for good is
//     signed and complete. A request takes the fragments that it asks for, from a key frame on.
//   - A segment that is damaged at its site holds up nothing: it is tried a few times, and then what is
//     good of it counts and the rest is given up, for a job for good and for policies until the next link.
package fetch
