// Package schemas holds what a table is, how its rows are written in Avro, and which
// schemas follow from it. What sources share is here, so that two sources cannot write
// one type in two ways.
package schemas
