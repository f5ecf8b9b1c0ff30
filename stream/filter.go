package stream

import (
	"cmp"
	"slices"
)

// An AbortedTxn is an entry of a fetch response's list of aborted
// transactions: batches of ProducerID from FirstOffset on, up to the marker
// that ends the transaction, were never committed.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// A Filter tells the committed batches of one fetch response from the aborted
// ones. It works as read_committed readers must: the list says where each
// aborted transaction begins, the ABORT marker in the log where it ends. The
// zero value is ready and knows of no aborted transaction.
type Filter struct {
	aborted []AbortedTxn // by FirstOffset
	next    int          // the first of them that is not reached yet
	open    []int64      // producers inside an aborted transaction
}

// Reset prepares f for the batches of another response, with the list that
// came with them, in any order. The list is copied.
func (f *Filter) Reset(aborted []AbortedTxn) {
	f.aborted = append(f.aborted[:0], aborted...)
	f.next, f.open = 0, f.open[:0]
	slices.SortFunc(f.aborted, func(a, b AbortedTxn) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
}

// Keep says whether the records of b are for the reader: neither aborted nor
// a control batch. It must see each batch of the response once, in order, the
// ones to be dropped too. A batch that is not kept still moves the reader's
// position, to b.NextOffset().
func (f *Filter) Keep(b *BatchInfo) bool {
	f.reach(b.LastOffset())
	if b.Control != NotControl {
		if b.Control == ControlAbort {
			f.close(b.ProducerID)
		}
		return false
	}
	return !b.Transactional || !slices.Contains(f.open, b.ProducerID)
}

// reach opens the aborted transactions that begin at or before offset.
func (f *Filter) reach(offset int64) {
	for ; f.next < len(f.aborted) && f.aborted[f.next].FirstOffset <= offset; f.next++ {
		if id := f.aborted[f.next].ProducerID; !slices.Contains(f.open, id) {
			f.open = append(f.open, id)
		}
	}
}

func (f *Filter) close(id int64) {
	if i := slices.Index(f.open, id); i >= 0 {
		f.open = slices.Delete(f.open, i, i+1)
	}
}
