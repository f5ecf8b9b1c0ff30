// Package app makes a process of a configuration: the broker, the registry, one pipeline
// for each capture and one target for each sink, with the only supervisor.
//
// A part's run ends by an error, and starting it again is its only recovery. The
// supervisor starts it again after a pause that grows, but not after a fatal error, which
// a person has to look at, and not after being fenced: then another process does the work.
//
// Parts are stopped in the reverse order of need: captures and sinks first, which flush and confirm,
// then the registry, then the broker.
package app
