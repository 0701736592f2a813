// Package proto is the wire format of a link: the messages of branchline.proto and their generated
// code, without sockets, framing or meaning.
//
// Fields and numbers are only ever added: a hub and an edge one version apart understand each other,
// and a field that one of them does not know yet is kept when a message is passed on. The target
// "proto" of the Makefile generates the code again; `buf breaking` compares with the main branch.
package proto
