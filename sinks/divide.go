package sinks

import (
	"context"
	"errors"
)

// divider applies changes of one partition, in order, although the target refuses some of
// them. One that it does not name is found by halving: some 2·log2(n) tries for one among n,
// and at most two for each that is refused and each that is not.
type divider struct {
	changes []Change
	// try hands the target those of changes[lo:hi] that do not wait, and makes all of them
	// durable with the position. given are their indexes, valid until the next try.
	try func(ctx context.Context, lo, hi int) (given []int, err error)
	// refuse notes that one is refused; try does not hand it over any more.
	refuse func(i int, why *Cause) error
}

func (d *divider) run(ctx context.Context, lo, hi int) error {
	for lo < hi {
		given, err := d.try(ctx, lo, hi)
		if err == nil {
			return nil
		}
		at, ok := d.culprit(err, given)
		if !ok {
			return err
		}
		if at >= 0 { // what stands before it first
			if err := d.run(ctx, lo, at); err != nil {
				return err
			}
			if err := d.refuse(at, causeOf(err)); err != nil {
				return err
			}
			lo = at
			continue
		}
		middle := d.cut(given)
		if err := d.run(ctx, lo, middle); err != nil {
			return err
		}
		lo = middle
	}
	return nil
}

// culprit returns which change an error is about; -1: one of those given. ok is false if it
// is about something else.
func (d *divider) culprit(err error, given []int) (at int, ok bool) {
	var named *Refused
	if errors.As(err, &named) {
		for _, i := range given {
			if &d.changes[i] == named.Change {
				return i, true
			}
		}
		return 0, false
	}
	if !isOfRow(err) || len(given) == 0 {
		return 0, false
	}
	if len(given) == 1 {
		return given[0], true
	}
	return -1, true
}

// cut returns the index at which the second half of what was given begins: if it can be,
// where another commit does, so that what belongs together is tried together.
func (d *divider) cut(given []int) int {
	for off := range len(given) / 2 {
		for _, i := range []int{len(given)/2 - off, len(given)/2 + off} {
			if i > 0 && i < len(given) && d.changes[given[i-1]].Mark.Pos != d.changes[given[i]].Mark.Pos {
				return given[i]
			}
		}
	}
	return given[len(given)/2]
}

// isOfRow says whether an error of Apply is about a row of the batch that the sink cannot
// name.
func isOfRow(err error) bool {
	var row interface{ OfRow() bool }
	return errors.As(err, &row) && row.OfRow()
}

// refuses says whether an error of Apply means that the target refuses a change.
func refuses(err error) bool {
	var named *Refused
	return errors.As(err, &named) || isOfRow(err)
}

// maxCause bounds the text of a cause, in bytes.
const maxCause = 4 << 10

// causeOf makes the cause of an error. Its code is what a method Cause() string says.
func causeOf(err error) *Cause {
	c := &Cause{Text: err.Error(), Hint: HintOf(err)}
	c.Text = c.Text[:min(len(c.Text), maxCause)]
	var coded interface{ Cause() string }
	if errors.As(err, &coded) {
		c.Code = coded.Cause()
	}
	return c
}
