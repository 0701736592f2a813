// Command wan makes a wide-area network on this machine, for people who want to see what a program does
// on a bad one: two network namespaces, a branch's and a centre's, joined as package e2e/network tells.
package main
