// Package judge compares what writers committed to a database with what a reader found in
// the topics, and counts what is wrong. It is pure: no server, no decoding, and nothing of
// the product's code, so that a fault of the product cannot hide itself.
//
// What it is given is (1) every transaction of every writer, as the writer logged it, in
// that writer's order, and (2) every record of every topic, partition by partition in
// offset order, with the header `tailrace` already taken apart.
package judge
