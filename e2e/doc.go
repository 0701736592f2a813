// Package e2e tests the real binary: hub, edges and cameras as processes of their own, over real
// RTSP, QUIC and HTTP on loopback, with a relay between edge and hub that can be cut, and the
// cameras' own pattern as the judge of what was recorded, fetched and played.
package e2e
