// Package federation is a [branchline.Source] across a network. [Serve] answers for a source on one
// side of a connection and [Remote] is that source on the other; [Uplink] keeps an edge linked to its
// hub, and [Peers] keeps a hub's links to its sites. It is the only user of package proto; how
// messages stand on the wire is told in docs/reference/protocol.md.
//
// What always holds:
//
//   - The edge dials, the hub asks. What an edge can ask of a hub is to greet it, to renew its certificate
//     or to have it back, and to give back a segment of its own that its disk has lost; nothing else.
//   - The site's name comes from its certificate. Identifiers cross the wire as the site itself calls
//     them; whoever serves several sites puts the names in front.
//   - Whatever a peer sends costs at most its own stream: a message over its limit, one that cannot be
//     read or that makes no sense resets the stream, and the link lives on.
//   - Nothing here keeps video. A reader that is slow is felt by the source at the other end, whose
//     ring then drops items and says so; no queue grows in between.
//   - Errors that mean something here mean the same on the other side: one table, in codes.go, turns
//     them into codes and back.
package federation
