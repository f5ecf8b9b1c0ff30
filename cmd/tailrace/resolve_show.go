package main

import (
	"fmt"
	"strings"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/sinks"
)

// captureEffect says what a decision about a capture does.
func captureEffect(e *capture.Effect) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch e.Way {
	case capture.WaySkip:
		skipEffect(e, say)
	case capture.WaySchema:
		say("the next schema of subject %s, after version %d, is registered although the registry finds it incompatible", e.Schema.Subject, e.Schema.Version)
		say("its level of compatibility is NONE for that moment, then again %s", e.Schema.Level)
		say("readers that know only the schemas so far may not be able to read what comes then")
	default:
		epochEffect(e, say)
	}
	for _, t := range e.Topics {
		if t.Partition < 0 {
			say("topic %s %s", t.Topic, t.What)
			continue
		}
		say("partition %s/%d %s", t.Topic, t.Partition, t.What)
	}
	for _, key := range e.Forgets {
		say("the record %q of the state, which cannot be read, is removed", key)
	}
	for _, b := range e.Backfill {
		say("backfill %s ends", b)
	}
	return lines
}

func epochEffect(e *capture.Effect, say func(string, ...any)) {
	say("capture %s begins epoch %d", e.Capture, e.Epoch)
	if e.From != nil {
		say("the topics hold the log up to %s", e.From)
	}
	if e.Slot != "" {
		say("its slot is %s", e.Slot)
	}
	switch {
	case e.Reads:
		say("every table is read anew, after a TRUNCATE in its topic: sinks empty their tables and fill them again")
		say("what was changed between then and now is not told change by change; the rows as they are when they are read are")
	case e.To == nil:
		say("no table is read (snapshot: never): what was changed until now is in no topic, and never will be")
	case e.Again:
		say("no table is read (snapshot: never); the log is read from %s: changes that the topics have already are written again", e.To)
	default:
		say("no table is read (snapshot: never); the log is read from %s: what lies between is in no topic", e.To)
	}
}

func skipEffect(e *capture.Effect, say func(string, ...any)) {
	s := e.Skipped
	say("capture %s goes on at %s; it has read to %s", e.Capture, e.To, e.From)
	var tables []string
	for _, t := range sortedKeys(s.Tables) {
		tables = append(tables, fmt.Sprintf("%s %d", t, s.Tables[t]))
	}
	in := ""
	if len(tables) > 0 {
		in = " (" + strings.Join(tables, ", ") + ")"
	}
	say("in between lie %s with %s%s: they are in no topic, and never will be", count(int(s.Transactions), "transaction"), count(int(s.Changes), "change"), in)
	if s.Stopped != "" {
		say("of transaction %s that is not all, since it cannot be read on: %s", s.Last, s.Stopped)
	}
	if s.Partly {
		say("a part of the last transaction is in the topics already, and stays; its end never comes")
	}
	say("rows that the skipped changes touched stay as they were, in every target, until they change again; a backfill brings them up to date")
}

// sinkEffect says what a decision about a sink does.
func sinkEffect(e *sinks.Effect) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch e.Way {
	case sinks.WayGap:
		say("sink %s goes on although records are missing: what they said never reaches the target", e.Sink)
	case sinks.WaySkip:
		say("sink %s leaves changes out: they never reach the target", e.Sink)
	case sinks.WayBeginning:
		say("sink %s applies all that the topics hold again", e.Sink)
		say("rows that the target has stay until a change comes for them; a table without a key gets its rows twice: empty it before")
	}
	for _, p := range e.Partitions {
		var what []string
		if p.Skipped > 0 {
			what = append(what, count(int(p.Skipped), "record")+" left out")
		}
		if p.Missing > 0 {
			what = append(what, count(int(p.Missing), "record")+" missing")
		}
		if p.Again > 0 {
			what = append(what, count(int(p.Again), "record")+" again")
		}
		if p.Note != "" {
			what = append(what, p.Note)
		}
		say("%s/%d: from offset %d to %d: %s", p.Topic, p.Partition, p.From, p.To, strings.Join(what, "; "))
	}
	if e.Letters > 0 {
		say("%s given up", count(e.Letters, "dead letter"))
	}
	return lines
}
