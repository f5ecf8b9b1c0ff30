package stream

import "encoding/binary"

// PartitionOf returns the partition, from 0 to partitions-1, that Java's
// default partitioner gives to a record whose key is keyBody: murmur2 of the
// bytes, made positive by dropping the sign bit, modulo partitions. A topic of
// one partition, or of none, gives 0.
//
// The product hashes the key's Avro body without the frame of the schema id,
// so that a new key schema does not move a row.
func PartitionOf(keyBody []byte, partitions int32) int32 {
	if partitions <= 1 {
		return 0
	}
	return int32(murmur2(keyBody)&0x7fffffff) % partitions
}

// murmur2 is Austin Appleby's 32-bit MurmurHash2 with the seed that Kafka's
// clients use.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data))
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
