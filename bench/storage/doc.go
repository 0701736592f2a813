// Command storage measures what recording costs and how long a store takes to open, list and rebuild.
//
// What always holds:
//
//   - A figure stands beside a limit, or beside a peer that did the same work in the same run, and says how it
//     compares. Peer and project take turns or work at the same time, several rounds, and medians are compared,
//     with the spread shown: the machine may have other work.
//   - What is measured is what is shipped: the edge is the real binary, cameras are a process of their own, so
//     that their work does not count, and memory and processor time are the kernel's, from /proc.
//   - Each benchmark replaces its own section of the results, with the machine, the date and the commit.
//   - Nothing here decides a test.
//
// It needs Linux. `make bench-storage` runs it; ARGS="-only durable,cpu -rounds 3" picks.
package main
