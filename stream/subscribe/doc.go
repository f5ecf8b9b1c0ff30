// Package subscribe reads what captures write: changes of rows, in order, with
// the schemas they were written with.
//
// It has two levels. The lower one belongs to no group and keeps no position:
// a Feed is given positions and reads on from there; a Batch holds the changes
// of one partition; Rows decodes them without allocating; Transactions puts
// whole source transactions together again, by their END records. Sinks use
// it, and keep the Position of each partition in their target.
//
// The upper one is for programs: To joins a consumer group, decodes rows into
// structs, and commits what was acknowledged.
//
// The way of a record in: partition.read fetches (stream.Reader drops what was
// aborted), partition.add checks its number and place (sequence.judge), copies
// it into a Batch and finds its Table; Feed.Next gives the batch; Rows.Decode
// walks the row.
//
// What is checked of each partition: the number n rises by one from record to
// record, and (epoch, order, row) does not fall. So a topic that was made anew,
// or has lost records, is found out and ends the reading; nothing is skipped.
package subscribe
