// Package demo shows a whole pipeline on one machine: a shop's database that is written
// to, captured into the embedded broker and applied to a second database, until both are
// compared. Everything that it starts or creates is gone when it ends.
//
//	Run         puts the parts up, waits, compares, takes them down
//	server      a private PostgreSQL, when none was named
//	database    the two databases; checksums
//	shop        the tables and what is in them at the beginning
//	workload    what happens in the shop meanwhile
//	view        what a person sees
package demo
