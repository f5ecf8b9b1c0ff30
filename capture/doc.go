// Package capture is the source-independent half of a capture: it numbers a log's changes,
// routes them to topics, appends them to record batches, writes them with the state that
// goes with them, and recovers.
//
// # The way of one row
//
// A Source decodes its log and calls an Emitter from one goroutine, in log order. Here
// the Emitter is the pipeline:
//
//	pipeline.Change       takes the framed key and value of one record
//	topicRoute.partition  chooses the partition by the key's Avro body
//	progress.admit        drops what the topic already has, else gives the number n
//	pipeline.write        appends to the partition's batch: the only copy
//	pipeline.push         hands the group to the goroutine that sends
//	sender.send           seals, produces, writes the state, ends the transaction
//	sender.durable        confirms to the database what is safe to confirm
//
// # Two goroutines
//
// The source's goroutine owns progress, the routes and the group that is being filled; the
// sender owns the producer and the group that is being sent. A group passes between them
// over a channel that holds one. While the sender is busy the group in the channel may be
// taken back and filled further, so that under load many source transactions share one
// commit, and an idle pipeline commits at once.
//
// # Recovery
//
// There is one way to start, also after any error: Run. It trusts nothing that it can
// check. The arithmetic is pure and stands in progress.go (what is written, under which
// number, what the state says of it) and recover.go (which position the topics bear out);
// start.go does the reading and asking around it. The state's records are in state.go.
package capture
