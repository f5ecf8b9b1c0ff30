// Package testenv starts private real servers for tests and benchmarks: PostgreSQL 14–18
// and Apache Kafka, each on a loopback port of its own, in a temporary directory of its
// own, gone when it is closed or when the starting process dies in whatever way.
//
// What the servers are made of is put under .deps by `make deps`; nothing is installed
// from here. PostgreSQL 15 is the machine's own (Debian's package).
//
//	StartPostgres, StartKafka      for programs: context, error, Close
//	NewPostgres, NewKafka          for one test: fail the test, closed at its cleanup
//	SharedPostgres, SharedKafka    one for all tests of a package (TestMain calls Main)
package testenv
