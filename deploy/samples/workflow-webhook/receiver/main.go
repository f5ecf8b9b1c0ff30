// Receiver takes signed webhooks of tailrace and drives a workflow with them: each order
// goes from awaiting its payment to picking, transit and its end.
//
//	POST /changes/{table}   a change; answers 204 once it is remembered for good
//	GET  /workflows         every order and where it stands, as JSON
//
// It shows the three things that a receiver does: it believes nothing whose signature is
// not right (signature.go); it remembers the ids of changes, so that one that comes again,
// as it may after a crash on either side, counts once (journal.go); and it does not rely on
// the order of changes of different rows (workflow.go).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// largestBody is the most that a change may have.
const largestBody = 1 << 20

// receiver is the state of everything, behind one lock.
type receiver struct {
	secrets [][]byte
	now     func() time.Time

	mu      sync.Mutex
	journal *journal
	flow    *workflows
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8088", "loopback address")
	file := flag.String("journal", "receiver.journal", "file that remembers what has come")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *file, os.Getenv("WEBHOOK_SECRET")); err != nil {
		log.Fatal("receiver: ", err)
	}
}

// run answers until ctx ends.
func run(ctx context.Context, listen, file, secret string) error {
	key, err := parseSecret(secret)
	if err != nil {
		return fmt.Errorf("WEBHOOK_SECRET %w", err)
	}
	r := &receiver{secrets: [][]byte{key}, now: time.Now, flow: newWorkflows()}
	if r.journal, err = openJournal(file, r.flow.apply); err != nil {
		return err
	}
	defer r.journal.close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r.handler(), ReadTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	log.Printf("receiver: listening on %s, %d changes remembered", l.Addr(), len(r.journal.seen))
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (r *receiver) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /changes/{table}", r.change)
	mux.HandleFunc("GET /workflows", r.show)
	return mux
}

// change takes one change.
func (r *receiver) change(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, largestBody))
	if err != nil {
		http.Error(w, "the body does not come", http.StatusBadRequest)
		return
	}
	if err := verify(r.secrets, req.Header, body, r.now()); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var c change
	if err := json.Unmarshal(body, &c); err != nil || c.Table != req.PathValue("table") {
		http.Error(w, "not a change of this table", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.journal.once(req.Header.Get("webhook-id"), c, r.flow.apply); err != nil {
		log.Print("receiver: ", err)
		http.Error(w, "it could not be remembered", http.StatusInternalServerError) // it will come again
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// show tells where every order stands.
func (r *receiver) show(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	if err := out.Encode(r.flow.list()); err != nil {
		log.Print("receiver: ", err)
	}
}
