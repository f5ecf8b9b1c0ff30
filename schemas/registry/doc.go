// Package registry has both ends of Confluent's schema registry API, for Avro: a Client
// of any registry that speaks it, and a Server of our own that keeps its schemas in the
// `_schemas` topic in Confluent's format, so that either program can take over the topic
// of the other.
//
// # Writing through the server
//
// One registration passes, in this order: find (routes.go), register and registration
// (register.go), write (commit.go), Log.Append, catchUp with Log.Read, parseRecord
// (record.go), apply (state.go), answer. Only what was read back from the log is in the state,
// so that an answer never tells what a restart would not find.
//
// One server writes: NewServer fences the log before it reads it, and a server that finds
// itself fenced answers reads only, from then on, and says so through Done.
//
// # What is not here
//
// Contexts other than the default one, schema references, and types other than Avro are
// read from a log that has them and left as they are; new ones are refused.
package registry
