// Package sinktest has what every sink is tested with: a Writer, which writes topics as a
// capture does, and Run, the suite that every sink must pass.
package sinktest
