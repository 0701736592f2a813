// Package volume makes small real volumes for tests: a file system in a file, mounted by way of a loop
// device, whose power can be cut. It needs Linux, root, loop devices and the file system's programs.
//
// What a cut leaves is what the file system had brought to its device: nothing that was only in memory,
// neither data nor journal. The device itself is taken for one without a cache of its own.
package volume
