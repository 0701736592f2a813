// Package branchline holds the nouns of the system and the contracts between its parts. It uses the
// standard library alone, knows no network, disk or camera, and everything else imports it.
//
// What always holds:
//
//   - Times are UTC. A stream's decode times, its segments' spans and its gaps lie on that one time
//     line; a [TimeRange] is half open, [Start, End).
//   - Identifiers are paths of labels joined by dots, shortest at the node that made them and longer
//     by one label at each node above: the stream "entrance.main" of an edge is "berlin.entrance.main"
//     at the hub to which the site berlin is linked. The label comes from the site's certificate, so
//     no site can speak of another's cameras.
//   - A segment's identifier and bytes are the same on every node for its whole life.
//   - Values handed from one part to another are not changed afterwards by either side; byte slices
//     inside an [Item] are shared by all its readers.
package branchline
