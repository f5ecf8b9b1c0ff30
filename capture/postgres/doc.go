// Package postgres reads the log of a PostgreSQL database, 14 to 18, through a logical
// replication slot with the output plugin pgoutput, and writes each change as Avro.
//
// The way of one row, by function:
//
//	socket.Read        bytes from the network; it waits for more when there is a backlog
//	frames.next        one CopyData message, in place
//	stream.message     one look at one byte: row changes go on, all else goes to control
//	stream.row         the table's plan, by relation id
//	walkTuple          the message is split into fields, without copying
//	plan.appendRow     each field is appended as Avro by its column's encoder
//	Emitter.Change     key and value, framed, go to the pipeline
//
// Nothing on this way allocates for a row. What can block or fail for other reasons than
// the row's own bytes (the catalog, the registry, topics) happens when a plan is made: at
// the first change after a Relation message that says something new.
//
// Two goroutines serve a run. The one that calls Source.Run reads, encodes and calls the
// Emitter. The other, in confirm.go, is the only writer on the connection: it tells the
// server what was received and what is durable, also while the first one is held up.
//
// The initial snapshot takes the same way from the plan on:
//
//	reader.read        COPY of one table, in the transaction that imported the snapshot
//	blockWriter.Write  whole rows are gathered into a block, which goes to the writer
//	splitCopy          a row is split into fields, unescaped in place
//	plan.appendRow     and so on, as above
//
// Several readers run side by side, each with its connection; the goroutine that called
// Snapshot is the only one that calls the Emitter.
//
// Columns that are left out or masked are so where the plan is made (choice.go, mask.go):
// appendRow, appendOldKey and appendKey write nothing else, whether a row comes from the log
// or from a table, and the version that the Emitter is told of has neither the columns nor
// their defaults and labels. Readers of tables do not even ask for values of which nothing
// is written. The server's words about a value are not repeated.
//
// What the log does not say (NOT NULL, defaults, the order of key columns, the labels of
// an enum) is read from the catalog as it is when the version is described, which may be
// later than the change. Where the catalog contradicts the log, the log wins: a NULL in a
// column that is NOT NULL by now makes a version of the table in which the column is
// nullable, a label that is not known makes a version that has it.
package postgres
