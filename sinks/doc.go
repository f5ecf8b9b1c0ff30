// Package sinks carries changes from topics to a target: the contract of a Sink, and the
// runner that reads, groups and hands over. Each target is a package below.
//
// # The way of one change
//
//	stream.RunGroup         gives this member the partitions, or lets it stand by
//	Sink.Take               raises the fence in the target and tells the positions there
//	subscribe.Transactions  reads from there on; whole source transactions (mode Transactions)
//	subscribe.Feed          the same, partition by partition (mode Keys)
//	collector.next          groups what has come while the last batch was applied
//	Sink.Apply              rows and positions durable at once
//
// The position stands with the data, in the transaction that writes it; offsets committed
// to the group are for tools that show lag, and are never read. A run that fails is started
// again by its caller, and goes on where the target says. A target that has no place for a
// position, and no transactions, is given changes at least once: Positions keeps positions
// and fences for it, in a topic.
//
// # Order
//
// Mode Transactions applies whole source transactions in the log's order; one member owns
// all partitions and others stand by. Mode Keys keeps the order of each partition, thus of
// each key, and shares the partitions among the members. A TRUNCATE stands in every
// partition of its topic: each waits at it until all have reached it, then it is applied
// once.
package sinks
