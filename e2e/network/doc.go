// Package network makes small wide-area networks for tests: two network namespaces of this machine, a
// branch's and a centre's, joined by one or more links that are as slow, long, lossy and broken as is asked
// for, for everything that runs over IPv4. It needs Linux, root and TUN devices, and no kernel netem.
//
// What always holds:
//
//   - Packets cross in this process, from one TUN device to the other. What a link does to them can change
//     at any moment and differ by direction; nobody at the ends is told.
//   - Link number i is 10.77.i.0/24, with .1 the branch and .2 the centre. Namespaces have routes to nothing
//     else, so nothing of a test ever leaves the machine, and equal addresses of two networks do not meet.
//   - Names begin with "bl-" and the number of the process that made them. Close deletes them; those of a
//     process that died before it could are deleted by whoever makes the next network.
package network
