// Package link carries streams of bytes between two nodes that have proved to each other who they
// are. It is the only user of quic-go, and it knows nothing of video.
//
// What always holds:
//
//   - A [Conn] that [Dial] or [Listener.Accept] returns is authenticated on both sides; who the peer
//     is comes from its certificate and nothing else.
//   - A stream begins with its [Kind]. Everything after that belongs to the streams' users.
//   - Both sides send something every [KeepAlive], and a dead path is noticed within that and
//     [IdleTimeout] together. All calls on the connection and its streams then fail.
//   - Whoever dials knocks at a hub that does not answer, with small packets, a few a second, and is connected
//     within two round trips of the first answer ([Knock]). The connections of a socket knock together; when the
//     hub answers, those that have become silent go on by what they sent last being sent again, and one that
//     does not is given up.
//   - So is, by the side that dialled, a path that loses what it sends and lets keep-alives pass, after
//     [StallTimeout].
//   - A stream that is reset, flooded or not read costs only itself: the windows bound what a peer
//     can make this node keep.
//
// [Pipe] is the same in memory, for tests and simulations; [Cuttable] stands in for a cable that
// somebody pulls out.
package link
