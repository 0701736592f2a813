// Package report writes what benchmarks have measured: figures with their peers and limits, as sections of a
// file in Markdown, each with the machine, the commit and the time.
package report
