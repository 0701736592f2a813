// Package record writes a stream's items to a store, on the edge where they are made and on a hub that
// receives them live; both write the same fragments. Only the edge seals. A seal that is seen live is
// not durable yet, and after a crash the edge may seal otherwise; so a hub waits for its change feed.
//
// What always holds: only whole fragments are written, in the order of the items. A fragment of which
// an item was missed is not written. On a hub it is a hole in the segment, fetched later; on the edge
// nothing else has those bytes, so the rest of the segment is given up, the segment is asked to end at the
// next random access point, and recording goes on there; what is missing until then becomes a gap with its
// cause. An error of the store never
// stops the recorder.
package record
