// Package sourcetest says in tests what [branchline.Source] says in words. Every implementation runs
// [Run]: the edge, the remote over memory and over QUIC, the hub, the simulation. [RunControl] does the
// same for [branchline.Control]. [Memory] is a
// complete source without disk or camera, for the tests and simulations of whoever uses one.
package sourcetest
