// Package hub is the central node. It puts the parts together: the links to the sites, the catalog of
// what they have, the store of what is held, the fetcher that fills it, and the live streams.
//
// What always holds:
//
//   - A [Node] is itself a source: held and edge footage alike, under identifiers that begin with the
//     site's name. Bytes that are held come from the hub's disk, all others from their site while it is
//     linked.
//   - A stream crosses a site's link once, however many viewers it has and whether or not it is also
//     recorded: all of them read one ring, which one subscription at the site fills.
//   - Readers of a live stream outlive a link: they wait while the site is dark, and go on with the
//     start of the segment that it then makes.
//   - What comes live and what is fetched meet in one store and are the same bytes; no part needs to
//     know which way a fragment came.
//   - Everything but live pictures survives a restart at any moment. Policies begin when a hub first
//     has them and keep that beginning.
package hub
