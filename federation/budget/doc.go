// Package budget decides how fast a site sends. One [Budget] stands before everything that an edge sends
// to its hubs, over all links and connections; it knows no network and no video.
//
// What always holds:
//
//   - Classes are strict: while something more urgent waits, nothing less urgent passes. What has passed is
//     one chunk at most, so nothing waits behind more than that.
//   - Control never waits. Everything else stays within the [Schedule] and the [Quota], live and playback
//     included, and control's bytes count against them too: what counts is what was really sent.
//   - What is less urgent than live yields by delay: its rate falls before the queue in front of the line
//     doubles the round trip time, whether packets are lost or not.
//   - Where nothing limits, passing costs some atomic operations.
//   - Who is not let in is told why in numbers, and what would fit instead: a [Refusal].
package budget
