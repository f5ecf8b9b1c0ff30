// Package stream is everything between a change as bytes and a Kafka topic:
// record batches, the producer and the reader of them, topics, and the state
// topic. It knows nothing of databases, tables or Avro: keys and values are
// bytes.
//
// The way of the bytes, out: Batch.Append copies key, value and headers into
// the batch of one partition (PartitionOf chose it); Batch.Seal compresses;
// Batch.Stamp writes producer id, epoch, sequence and checksum; the producer
// sends. A retry, or a new producer epoch, stamps again and compresses nothing
// again.
//
// And in: the reader fetches raw record sets; Decoder.NextBatch checks and
// describes one batch; Filter.Keep drops what was aborted; Decoder.NextRecord
// gives views of the records, inflating the batch at the first one.
//
// FORMAT.md lists every byte of a batch as it is written here, and of the
// header `tailrace` (Mark, EndPart) that each record carries.
package stream
