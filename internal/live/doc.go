// Package live holds the newest items of one stream for any number of readers: the recorder, the link
// to a hub, viewers. An item is kept once, whoever reads it, and is never copied.
//
// What always holds:
//
//   - Publishing never waits for a reader. The ring is bounded by items, bytes and age, and a reader
//     that falls out of it loses its own items alone.
//   - What a reader gets is a subsequence of what was published. Where items are left out, the next
//     one carries how many.
//   - A reader starts, and goes on after a loss, with the SegmentStart of the segment that it is in
//     and then the first frame of a key fragment. That SegmentStart is given again where it is no
//     longer in the ring; such a repetition counts as no item.
package live
