// Package testcam is a synthetic camera, the measuring instrument of the whole project: an RTSP server
// whose every frame says when it was captured, by which camera, and as which frame, so that a test can
// prove which frame was recorded, fetched or shown, and how late.
//
// What always holds:
//
//   - A frame carries its [Mark] (capture time in microseconds, camera number, frame number, CRC-32) as
//     a pattern of black and white blocks over the top of the picture, and the same as digits.
//     [DecodePattern] reads it from luma, web/src/lib/pattern.ts from a canvas, also scaled down.
//   - The video is H.264, constrained baseline, made here in Go. It is exact: a decoder that follows the
//     standard shows the very pixels that were drawn, so [Decoder], which knows no more of H.264
//     than this package writes, gives the same picture as any player.
//   - Frames are numbered from zero and captured on a fixed grid, number n at the start plus n
//     intervals. A number that is missing at the receiver is a frame that was lost or that a fault
//     withheld, and none is ever sent twice.
//   - RTP timestamps advance with capture time exactly, to the tick. Every key frame has an RTCP
//     sender report with its capture time right behind its first packet, so a receiver knows the time
//     of the first frame that it can decode by the time that it has it.
//   - A camera needs no external program, no file and no network but its own listening address.
package testcam
