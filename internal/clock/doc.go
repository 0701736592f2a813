// Package clock is the only reader of the wall clock. Everything that stamps, compares or schedules
// by the time of day takes a [Clock], so that a test, a simulation or a node with a wrong clock is a
// matter of which value is passed in. Durations and timers use package time as usual.
package clock
