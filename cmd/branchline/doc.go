// Command branchline is every part of Branchline in one binary: the edge at a branch, the hub at the
// centre, a demonstration of both, and the commands of operators and inspectors.
//
// Only this package knows flags, files of configuration, signals, the environment and exit codes:
// 0 for success, 1 for a failure at run time, 2 for wrong usage or configuration. Everything else is
// a value that it opens, runs and closes.
package main
