// Command wan measures how recordings and live pictures cross wide-area links, always beside a peer on the same
// emulated link in the same run: kernel TCP with BBR and plain quic-go. It needs root, and the program iperf3.
// `make bench-wan` runs all of it; the results are in bench/results/wan.md.
package main
