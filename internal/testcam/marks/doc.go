// Package marks reads the marks of the synthetic camera's frames out of fragmented MP4, by a reader that
// shares no code with the one that wrote it. It is for tests alone and is imported by no other code.
//
// What always holds: every sample of a video track comes out as one [Frame], in the order of the file,
// whether its picture can be decoded or not; so what is missing, doubled or out of order in the list is
// so in the file.
package marks
