package capture

import "slices"

// Decisions in the simulation (see recover_sim_test.go), by ahead, goOn, put and putNext: the
// state and the tails are as a crash has left them.

// simStart is where an epoch begins: with a transaction of the log.
type simStart struct {
	epoch uint64
	from  int
}

// simSkip is a part of the log that is left out: transactions from … to-1, which a start
// up to that time may have written a part of.
type simSkip struct{ start, from, to int }

// decide has a person decide while the capture does not run.
func (s *sim) decide() {
	if len(s.starts)+len(s.skips) > 3 {
		return
	}
	if s.rnd.IntN(2) == 0 {
		s.newEpoch()
	} else {
		s.skip()
	}
}

func (s *sim) resolution() *resolution {
	return &resolution{s: s.state, info: LogInfo{Ready: true, Lowest: s.confirmed, Highest: s.log[len(s.log)-1].end}}
}

// first is the transaction that a start at a position begins with.
func (s *sim) first(at Position) int {
	i := slices.IndexFunc(s.log, func(tx simTx) bool { return tx.end.Compare(at) > 0 })
	if i < 0 {
		return len(s.log)
	}
	return i
}

// newEpoch begins a new epoch of the same log without a snapshot.
func (s *sim) newEpoch() {
	r, last := s.resolution(), *s.state.newest()
	epoch := last.Epoch
	tails := s.tails()
	for _, id := range s.state.known() {
		t := tails[id]
		if s.mutant == "decidetail" && !t.known { // what the state says of a record that may never have been
			t = tail{n: s.state.partitions[id].N, place: s.state.partitions[id].Place}
		}
		if rec := s.state.partitions[id]; s.mode == simLie && t.n < rec.at(s.state.oldest()) {
			s.lossy = true // as the person is told
		}
		epoch = max(epoch, t.place.Epoch)
		if s.mutant != "decidestate" {
			r.put(id, &t, 0)
		}
	}
	if s.mutant == "decidesame" {
		epoch--
	}
	r.goOn(last, epoch+1)
	if s.mutant == "decidenewest" {
		r.next.Position = last.Position
	}
	if s.carryOut(r, s.state.oldest(), s.mutant == "decideprogress") {
		s.starts = append(s.starts, simStart{r.next.Epoch, s.first(r.next.Position)})
	}
}

// skip leaves out some of the transactions that come next.
func (s *sim) skip() {
	r, tails := s.resolution(), s.tails()
	st, err := choose(s.state, tails)
	if err != nil {
		return
	}
	from := s.first(st.from.Position)
	if from == len(s.log) {
		return
	}
	to := from + 1 + s.rnd.IntN(min(3, len(s.log)-from))
	if r.ahead(st, tails, s.log[to-1].end) != nil {
		return
	}
	if s.mutant == "skipstate" {
		r.records = nil
	}
	if s.carryOut(r, st.from.G, s.mutant == "skipprogress") {
		s.skips = append(s.skips, simSkip{len(s.starts) - 1, from, to})
	}
}

// carryOut writes a decision as one batch: all of it, or nothing.
func (s *sim) carryOut(r *resolution, g uint64, keepProgress bool) bool {
	if s.rnd.IntN(6) == 0 {
		return false // killed
	}
	next := r.nextG()
	r.putNext()
	for _, rec := range r.records {
		if err := s.state.parse(rec.key, rec.value); err != nil {
			panic(err)
		}
	}
	if s.written.G > g && !keepProgress {
		s.written = s.written.back(next)
	}
	s.lastNew, s.before = nil, nil
	return true
}
