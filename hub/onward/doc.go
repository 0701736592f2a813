// Package onward keeps the change feed that a hub gives to the hubs above it: what its sites have and what
// happens to that, in one order, under this hub's names.
//
// What always holds:
//
//   - A change is entered in the same update of the database as what it changes here, so after a crash the
//     feed tells neither more nor less than is known.
//   - The feed takes little room however many segments there are: of the past only the newest changes are
//     kept. Who asks for older ones, or for all, first gets the present state summed up: sites, cameras, gaps
//     and spans that are recorded.
//   - A sum may already be ahead of the changes that follow it. Each change says how things are, so telling it
//     once more does no harm, and with the last one the reader knows what the feed knows.
package onward
