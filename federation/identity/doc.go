// Package identity says who a node is: the hub's certificate authority, the sites that it admits, the
// one-time tokens by which they enrol, and an edge's own key and certificate. It opens no sockets.
//
// What always holds:
//
//   - A private key never leaves the machine on which it was made, and its file is readable by its
//     owner only.
//   - A certificate is good only while the authority's list of sites names its key: revoking a site,
//     or enrolling it anew, makes all earlier certificates worthless at once.
//   - A token is worth one certificate. It is kept as a hash, used up on stable storage before the
//     certificate is handed out, and worthless after [TokenLife].
//   - The site's name is the one under which the operator made the token; nothing that an edge sends
//     changes it.
//   - A hub's authority can change without anybody enrolling again: the old one signs its successor, and its own
//     certificates stay good for an overlap. Whoever was off for longer holds its old key up and waits for an
//     operator.
//   - Of several nodes with one identity at most one is let in, and which one is for an operator to say.
//   - With an organisation's authority nothing is issued here, and its files are read again when they change.
//   - Files are replaced whole, by rename, after a sync. Several processes may use one authority's
//     directory at once: each operation reads the list, under a lock on it.
package identity
