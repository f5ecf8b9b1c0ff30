// Package embedded is the broker for one machine: franz-go's kfake, in this
// process, on loopback, with its log in a directory. Any Kafka client on the
// machine may read it, and write with an idempotent producer.
//
// Whatever it has acknowledged survives SIGKILL, since every batch is synced
// to the disk before its answer. Its transactions do not: a kill in the middle
// of an end of transaction tears it. So nobody may use transactions here, and
// a request for a transactional id is refused. A pipeline that writes here
// knows from each record's header `tailrace` what is there already, and one
// data directory is opened by one process at a time.
//
// There is one broker and no replication: the disk is the only copy.
package embedded
