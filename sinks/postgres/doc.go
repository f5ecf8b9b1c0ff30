// Package postgres applies changes to a PostgreSQL database.
//
// # One batch
//
//	Sink.Apply         one transaction: positions and fence, then the rows
//	applier.add        finds the plan of the change's table, decodes, folds
//	segment.put        Avro → COPY text; one entry per key
//	applier.flush      deletes, then upserts, tables ordered by their foreign keys
//	segment.bulk       COPY into a temporary table, then one DELETE, INSERT or UPDATE
//	segment.rows       few rows: prepared statements, sent together
//
// A batch holds many changes of one key only once: the fold keeps what the key's row is at
// the end. An update that says "unchanged" for a column is laid over what came before it, so
// no value is lost; if nothing came before in the batch, the target's value stays.
//
// The fold can order statements in a way that a constraint of the target does not allow,
// although the source's own order does (two rows swap a unique value). Then the batch is
// rolled back and applied again, change by change.
//
// # What the target needs
//
// Tables and columns that are missing are made from the schema of the changes. Tables that
// exist are taken as they are if they have the columns, and a primary key or unique
// constraint on the key columns. Columns that the source does not know are left alone.
//
// The position and the fence stand in tailrace.position; see position.go.
package postgres
