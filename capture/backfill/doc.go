// Package backfill is the arithmetic of reading a table in chunks while its log is tailed:
// which rows of a chunk may be written, and when. It does no I/O; package capture does that
// around it.
//
// A commit stands in the log before readers see it: it waits for the disk, or for a
// synchronous standby. So the place of a SELECT in the log says nothing of what it saw, and
// comparing places brings old rows back to life. Instead each chunk comes with its seen-set,
// the commits that it certainly saw (any part of what it truly saw will do), and with the
// log's end as read after the SELECT, beyond which lies nothing that it saw:
//
//	window opened         from here on the keys that the log changes are noted
//	SELECT                what it saw is the seen-set
//	log's end is read
//	window armed          the chunk is there: rows whose key was changed by a commit that it
//	                      has not seen are dropped, now and as such commits come by
//	log passes the end    the rows that are left are written, between two transactions
//
// A commit that the log had shown before the window was opened, and that the SELECT has not
// seen, may have changed any row unnoticed: the chunk is read again. So it is if a row is
// dropped for a change that the log has only a part of: a target without the row could not
// make one of it.
package backfill
