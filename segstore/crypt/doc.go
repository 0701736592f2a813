// Package crypt encrypts the fragments of segments on disk, and knows the keys.
//
// What always holds:
//
//   - A fragment has the same length in plain and encrypted, so offsets do not change. Its last 32 bytes
//     in plain are a checksum that is made anew; there the tag and the nonce stand on disk.
//   - Each segment has a data key of its own, derived from a key of the store and the segment's
//     identifier. What is opened was sealed with that key, for that segment, offset and length: a
//     flipped bit, and a fragment that was moved or comes from another segment or camera, is [ErrAltered].
//   - A nonce is random for each write, since after a crash other bytes may come to the same offset.
//   - A missing key is no damage: [ErrNoKey] says which, and what was asked for it.
//
// Values are not changed after they were made and may be used concurrently.
package crypt
