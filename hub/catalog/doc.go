// Package catalog knows what exists where: the cameras of every site, what is recorded there, why
// other time is not recorded, and when each site's link was down. It follows the sites' change feeds
// and answers from its own records, so a hub that was restarted while a branch is dark still shows
// what the branch has.
//
// What always holds:
//
//   - Identifiers are the hub's own: every camera and stream stands under the site whose feed told of
//     it, so no feed can speak of another site's cameras.
//   - A feed's position and its effect are stored in one update. After a crash at any moment the feed
//     goes on exactly where its effect ends.
//   - When a feed has to be read from its beginning, what it tells is built beside what was known, and
//     takes its place at once when it has been read; a link that is cut before changes nothing. Until
//     a site's first feed has told of a time, that is a gap with the cause "waiting".
//   - A site's feed has room for [MaxCameras] cameras and their streams, and only these have
//     recordings here.
//   - Recordings are kept as coalesced spans and gaps, so the size follows the number of interruptions
//     and not of segments. The spans of one stream do not overlap, nor do its gaps.
//   - An outage of a link begins at the last known contact. A hub that died closes that in on the
//     next start: its last sign of life is stored every few seconds, and from then on every site that
//     was linked counts as dark until its link is back.
package catalog
