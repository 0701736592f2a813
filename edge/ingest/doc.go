// Package ingest takes access units from RTSP cameras, over TCP. It is the only user of the RTSP
// library on the edge.
//
// What always holds: a [Session] is one connection to one camera and shares nothing with others. Units
// are handed over one at a time, whole or not at all: after a lost packet the unit it belonged to is
// dropped, and the next one says so. A session that cannot go on ends with an error, of which [CauseOf]
// tells in the system's words whose fault it is.
package ingest
