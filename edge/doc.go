// Package edge is the branch node: it records cameras on its own disk and answers for what it has. It
// never asks anyone for leave to record, and nothing that a network, a hub or another camera does stops
// it.
//
// What always holds, for each configured stream and the time since its camera was added:
//
//   - Segments and gaps together cover the time line without overlap. A gap says why there is no
//     recording; it is announced when it opens and again, with its exact end, when recording goes on.
//   - Segments are numbered in runs, and each names the hash of the one before it.
//   - Live items come from the ring that the recorder reads, so live and recorded bytes are the same.
//
// What a crash leaves: the store cuts the growing segments, and the next start enters the time since
// then as a gap, "edge stopped". A clean stop completes and seals everything, and loses nothing.
package edge
