// Package power tests what becomes of recordings when power, process or disk fails: an edge node records
// eight cameras in a process of its own, which is killed, or whose volume loses its power, fails, stalls
// or fills up.
//
// The tests that need real volumes run by make test-power alone, and say why if they cannot. Options are
// environment variables: CUTS is how many power cuts there are, KILLS how many kills.
package power
