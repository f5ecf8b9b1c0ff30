package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// entry is a line of the journal.
type entry struct {
	ID     string `json:"id"`
	Change change `json:"change"`
}

// journal remembers every change that has come, by its id, in a file with a line for each.
type journal struct {
	file   *os.File
	seen   map[string]bool
	failed error // of a write: what stands at the end is not known, so nothing more is written
}

// openJournal opens the file, or makes it, and gives every change in it to apply. A last
// line that a crash has cut off was not acknowledged, and is cut away.
func openJournal(name string, apply func(change)) (*journal, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	j := &journal{file: file, seen: map[string]bool{}}
	for line := range bytes.Lines(whole) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		j.seen[e.ID] = true
		apply(e.Change)
	}
	if err := file.Truncate(int64(len(whole))); err != nil {
		return nil, err
	}
	_, err = file.Seek(0, io.SeekEnd)
	return j, err
}

// once applies a change that has not come before, after it is on the disk.
func (j *journal) once(id string, c change, apply func(change)) error {
	if j.seen[id] || j.failed != nil {
		return j.failed
	}
	line, err := json.Marshal(entry{id, c})
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.failed = fmt.Errorf("write the journal: %w", err)
		return j.failed
	}
	j.seen[id] = true
	apply(c)
	return nil
}

func (j *journal) close() error { return j.file.Close() }
