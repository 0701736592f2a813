// Package media turns access units into the bytes that are stored, sent and played: fragmented MP4 in
// fragments of at most half a second, on one absolute time line. It is the only user of the MP4 and
// codec libraries, touches no network, disk or clock, and equal input gives equal bytes.
//
// What always holds for the items that a [Feed] makes on one stream:
//
//   - Decode times grow strictly within a track, whatever the camera sends, and runs never overlap.
//   - Within a run fragments meet without a hole, and each one's lead track (the video, or the audio
//     where there is no video) starts it. A run's first fragment, and each segment's, is a key fragment.
//   - Wall time is read once, at a run's start; inside the run the camera's media clock rules. When the
//     two part by more than [MaxDrift] the run ends and the next one is anchored anew.
//   - A frame is an item as soon as it is written. Its fragment's end follows with the next fragment's
//     first frame, because only then the last duration is known.
package media
