// Package buffer lends memory for fragments, so that what writes, serves and fetches them does not make it anew for
// each.
package buffer
