package samples

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// receiver is the sample's own, as a process.
type receiver struct {
	*testing.T
	bin, listen, journal, secret string
	proc                         *testenv.Process
}

// newReceiver builds and starts it.
func newReceiver(t *testing.T, secret string) *receiver {
	t.Helper()
	dir := t.TempDir()
	r := &receiver{T: t, bin: filepath.Join(dir, "receiver"), listen: freeAddress(t), journal: filepath.Join(dir, "journal"), secret: secret}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", r.bin, "./workflow-webhook/receiver").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *receiver) start() {
	r.Helper()
	cmd := exec.Command(r.bin, "-listen", r.listen, "-journal", r.journal)
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+r.secret)
	var err error
	if r.proc, err = testenv.StartProcess(cmd, syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
}

func (r *receiver) kill() {
	if err := r.proc.Kill(); err != nil {
		r.Error(err)
	}
}

// workflows is a line for each order: where it stands, what is paid, how many changes came.
func (r *receiver) workflows() (string, error) {
	resp, err := http.Get("http://" + r.listen + "/workflows")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var list []struct {
		Order, State, Paid string
		Changes            int
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return "", err
	}
	var lines []string
	for _, o := range list {
		lines = append(lines, fmt.Sprintf("%s: %s, %s paid, %d changes", o.Order, o.State, o.Paid, o.Changes))
	}
	return strings.Join(lines, "\n"), nil
}

// post sends a change, signed with a secret, and returns the status of the answer.
func (r *receiver) post(secret, id, body string) int {
	r.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		r.Fatal(err)
	}
	at := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+r.listen+"/changes/payment", strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		r.Fatal(err)
	}
	return resp.StatusCode
}

// remembered is how many changes the journal has, and how many ids.
func (r *receiver) remembered() (changes, ids int) {
	r.Helper()
	text, err := os.ReadFile(r.journal)
	if err != nil {
		r.Fatal(err)
	}
	met := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.Fatal(err)
		}
		changes, met[e.ID] = changes+1, true
	}
	return changes, len(met)
}

// stands waits until the orders stand so.
func (s *sample) stands(r *receiver, want ...string) {
	s.Helper()
	s.until(func() error {
		got, err := r.workflows()
		if text := strings.Join(want, "\n"); err == nil && got != text {
			err = fmt.Errorf("the orders stand\n%s\nwanted\n%s", got, text)
		}
		return err
	})
}

func TestWorkflowWebhook(t *testing.T) {
	const secret, other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	r := newReceiver(t, secret)
	s := start(t, "workflow-webhook", map[string]string{"SHOP_URL": "source.sql"}, map[string]string{"WEBHOOK_SECRET": secret, "RECEIVER_URL": "http://" + r.listen})
	s.stands(r, "A-1001: done, 20.00 paid, 1 changes", "A-1002: awaiting payment, 10.00 paid, 1 changes")

	s.exec("SHOP_URL", `INSERT INTO payment (order_no, amount) VALUES ('A-1002', 2.50), ('A-1004', 5)`, // A-1004 is not there yet
		`BEGIN; INSERT INTO orders VALUES ('A-1003', 1, 99.99, 'cara@example.org'); INSERT INTO payment (order_no, amount) VALUES ('A-1003', 99.99);
		 UPDATE orders SET status = 3 WHERE order_no = 'A-1003'; COMMIT`)
	s.stands(r, "A-1001: done, 20.00 paid, 1 changes", "A-1002: picking, 12.50 paid, 1 changes",
		"A-1003: in transit, 99.99 paid, 2 changes", "A-1004: awaiting order, 5.00 paid, 0 changes")

	r.kill() // both sides die in turns, with changes under way
	s.exec("SHOP_URL", `INSERT INTO orders VALUES ('A-1004', 1, 5, 'dan@example.org', 'ring twice')`, `UPDATE orders SET status = 9 WHERE order_no = 'A-1002'`)
	r.start()
	s.exec("SHOP_URL", `BEGIN; UPDATE orders SET order_no = 'B-0001' WHERE order_no = 'A-1003'; UPDATE payment SET order_no = 'B-0001' WHERE order_no = 'A-1003'; COMMIT`)
	for n := range 20 {
		s.exec("SHOP_URL", fmt.Sprintf(`INSERT INTO payment (order_no, amount) VALUES ('A-1004', %d)`, n), `UPDATE orders SET total = total + 10, remarks = 'more' WHERE order_no = 'A-1004'`)
		if n%5 == 2 {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			s.run()
		}
		if n%5 == 4 {
			r.kill()
			r.start()
		}
	}
	s.exec("SHOP_URL", `DELETE FROM orders WHERE order_no = 'A-1001'`, `DELETE FROM payment WHERE order_no = 'A-1001'`)
	end := []string{"A-1002: refunding, 12.50 paid, 2 changes", "A-1004: awaiting payment, 195.00 paid, 21 changes", "B-0001: in transit, 99.99 paid, 3 changes"}
	s.stands(r, end...)
	s.exec("SHOP_URL", `INSERT INTO payment (order_no, amount) VALUES ('A-1004', 10)`, `INSERT INTO payment (order_no, amount) VALUES ('A-1002', -12.50)`)
	end[0], end[1] = "A-1002: closed, 0.00 paid, 2 changes", "A-1004: picking, 205.00 paid, 21 changes"
	s.stands(r, end...)

	const read, paid, entered, changed, renumbered, repeated, deleted, settled = 4, 2, 3, 2, 3, 2 * 20, 2, 2
	if changes, ids := r.remembered(); changes != read+paid+entered+changed+renumbered+repeated+deleted+settled || ids != changes {
		t.Errorf("%d changes with %d ids are remembered", changes, ids)
	}
	const forged = `{"op":"c","table":"payment","key":{"id":9001},"after":{"order_no":"A-1002","amount":"1000.00"}}`
	if code := r.post(other, "forged", forged); code != http.StatusUnauthorized {
		t.Errorf("what is signed with another secret is answered with %d", code)
	}
	s.stands(r, end...)
	for range 2 { // one that comes again counts once
		if code := r.post(secret, "again", `{"op":"c","table":"payment","key":{"id":9002},"after":{"order_no":"Z","amount":"1.00"}}`); code != http.StatusNoContent {
			t.Errorf("it is answered with %d", code)
		}
	}
	s.stands(r, append(end, "Z: awaiting order, 1.00 paid, 0 changes")...)
	journal, err := os.ReadFile(r.journal)
	if err != nil {
		t.Fatal(err)
	}
	if leaks := found(map[string]string{"the receiver": string(journal), "the log": s.Log(1 << 30)}, []string{"example.org", "ring twice", "gift wrap"}); len(leaks) > 0 {
		t.Error(leaks)
	}
	s.stop()
}
