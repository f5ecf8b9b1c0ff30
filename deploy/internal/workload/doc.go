// Package workload changes a database from several writers at once, and has each of them
// log what was acknowledged to a file of its own, synced before the next transaction
// begins. Those files, not this process's memory, are what the changes are judged by.
//
// Each writer owns its keys, so it knows the right order of every key's changes; besides,
// all of them update the rows of one hot table, whose row locks make an order that the
// versions show, and, in the same transaction, those of its mirror.
package workload
