// Package members knows which nodes of a federation are alive. It is the only user of memberlist, whose
// gossip runs inside the links: no second port, no key of its own, and a way to nodes behind NAT.
//
// What always holds:
//
//   - A node is known by its site's name, a hub by an identifier that no site can have. The hub stamps what
//     it passes on with the name in the certificate of the link on which it came; nobody can speak as
//     another, and a hub passes on nothing for names that are not in its list of sites.
//   - Gossip is hearsay: a member may be wrong about others. So a link that is up counts more than anything
//     that gossip says, and nothing is ever deleted, taken over or carried because of it. It tells people
//     what is wrong, in [Join], a pure function.
//   - Whatever a peer sends is bounded: packets and streams a second and at once, their sizes, the members
//     that are remembered. What is over a limit is dropped and counted.
//   - A link without gossip, to a node of an older version, works as before; its site is known by the link.
package members
