package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// ErrGeneration: the generation of the group has ended; its partitions may be
// another member's by now.
var ErrGeneration = errors.New("the group's generation has ended")

// A Partition is one partition of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// GroupConfig says which group is joined, and for which topics.
type GroupConfig struct {
	Group  string
	Topics []string // they need not exist yet
	// Single gives all partitions to one member; the others stand by. All
	// members must say the same.
	Single bool
	// SessionTimeout is after what silence a member is taken for dead; default
	// 10 s. It must lie within the broker's group.min.session.timeout.ms (6 s)
	// and group.max.session.timeout.ms.
	SessionTimeout time.Duration
	// RebalanceTimeout is for how long the others wait for a member to let go of
	// its partitions; default 30 s.
	RebalanceTimeout time.Duration
	// LookEvery is how often the leader looks for new partitions, and for topics
	// of the list that were not there; default 5 s.
	LookEvery time.Duration
	Log       *slog.Logger // nil: silent
}

func (cfg GroupConfig) defaults() (GroupConfig, error) {
	if cfg.Group == "" || len(cfg.Topics) == 0 {
		return cfg, errors.New("join group: a group and its topics are needed")
	}
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = 10 * time.Second
	}
	if cfg.RebalanceTimeout <= 0 {
		cfg.RebalanceTimeout = 30 * time.Second
	}
	if cfg.LookEvery <= 0 {
		cfg.LookEvery = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Topics = slices.Compact(slices.Sorted(slices.Values(cfg.Topics)))
	return cfg, nil
}

// What requests to a group's coordinator are called in errors.
const (
	opJoin      = "join group"
	opSync      = "take partitions of group"
	opHeartbeat = "stay in group"
	opLeave     = "leave group"
	opCommit    = "commit offsets of group"
	opCommitted = "read offsets of group"
)

// The codes of groups.
const (
	codeIllegalGeneration    Code = 22
	codeInconsistentProtocol Code = 23
	codeInvalidGroup         Code = 24
	codeUnknownMember        Code = 25
	codeInvalidSession       Code = 26
	codeRebalancing          Code = 27
	codeMemberIDRequired     Code = 79
	codeGroupFull            Code = 81
	codeFencedInstance       Code = 82
)

// groupHints name the codes that a person has to do something about.
var groupHints = map[Code]string{
	codeInconsistentProtocol: "members of the group share it in different ways: give all of them the same settings, or choose another group",
	codeInvalidGroup:         "choose another name for the group",
	codeInvalidSession:       "choose a session timeout between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
	codeGroupFull:            "raise the broker's group.max.size, or run fewer members",
	codeGroupNotAuthorized:   "give the user the ACL READ on the group: kafka-acls.sh --add --allow-principal User:NAME --operation Read --group GROUP",
}

// groupNames are Kafka's names of codes that only groups have.
var groupNames = map[Code]string{
	codeIllegalGeneration: "ILLEGAL_GENERATION", codeInconsistentProtocol: "INCONSISTENT_GROUP_PROTOCOL", codeInvalidGroup: "INVALID_GROUP_ID",
	codeUnknownMember: "UNKNOWN_MEMBER_ID", codeInvalidSession: "INVALID_SESSION_TIMEOUT", codeRebalancing: "REBALANCE_IN_PROGRESS",
	codeMemberIDRequired: "MEMBER_ID_REQUIRED", codeGroupFull: "GROUP_MAX_SIZE_REACHED", codeFencedInstance: "FENCED_INSTANCE_ID",
}

// RunGroup is a member of a consumer group until ctx ends, then it leaves and
// returns nil. For each generation of the group it calls fn once, also if this
// member gets no partitions, with a context that ends with the generation:
// because the members share anew, the coordinator no longer knows this member,
// or has not answered for the session timeout. fn must return then, within the
// rebalance timeout; until it has, no new generation begins here.
//
// If fn returns while its generation lives, RunGroup leaves the group and
// returns fn's error, which may be nil. An error after the generation's end
// ends RunGroup too, unless it is the context's or an ErrGeneration.
//
// New partitions, and topics of the list that are made later, are noticed.
func (c *Client) RunGroup(ctx context.Context, cfg GroupConfig, fn func(ctx context.Context, g *Generation) error) error {
	cfg, err := cfg.defaults()
	if err != nil {
		return err
	}
	m := &member{client: c, cfg: cfg}
	defer m.leave(ctx)
	for {
		g, err := m.join(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		ended, err := m.serve(ctx, g, fn)
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)) || errors.Is(err, ErrGeneration)):
			return nil
		case err != nil || !ended:
			return err
		}
	}
}

// member is this process in a group. One goroutine uses it, but for what the
// mutex guards.
type member struct {
	client *Client
	cfg    GroupConfig
	id     string // "": the coordinator has given none yet
	owned  int32  // the last generation in which it had everything

	mutex       sync.Mutex
	coordinator string // address; "": not known
}

// A Generation is one sharing of the group's partitions among its members.
type Generation struct {
	member     *member
	id         int32
	memberID   string
	leader     bool
	partitions []Partition
	shared     map[string]int32 // leader: how many partitions each topic had
}

// Partitions returns those that this member has, sorted; the caller must not
// change them.
func (g *Generation) Partitions() []Partition { return g.partitions }

// Number returns the generation's number. It begins anew when the group is
// forgotten.
func (g *Generation) Number() int32 { return g.id }

// Member returns the name that the coordinator gave this member.
func (g *Generation) Member() string { return g.memberID }

// join joins the group and takes the partitions of the new generation.
func (m *member) join(ctx context.Context) (*Generation, error) {
	var g *Generation
	err := m.retry(ctx, func(ctx context.Context) error {
		joined, err := m.joinOnce(ctx)
		if err != nil {
			return err
		}
		g = &Generation{member: m, id: joined.GenerationID, memberID: m.id, leader: joined.LeaderID == m.id}
		var plan []syncgroup.RequestAssignment
		if g.leader {
			if plan, err = m.share(ctx, g, joined.Members); err != nil {
				return err
			}
		}
		g.partitions, err = m.sync(ctx, g, plan)
		return err
	})
	if err != nil {
		return nil, err
	}
	if m.cfg.Single && len(g.partitions) > 0 {
		m.owned = g.id
	}
	m.cfg.Log.Info("joined group", "group", m.cfg.Group, "generation", g.id, "partitions", len(g.partitions), "leader", g.leader)
	return g, nil
}

// retry is the client's retry; that the members are sharing anew, or that the
// coordinator has forgotten us, is a reason to join again too.
func (m *member) retry(ctx context.Context, fn func(context.Context) error) error {
	return m.client.retry(ctx, m.client.timeout+m.cfg.RebalanceTimeout, func(ctx context.Context) error {
		err := fn(ctx)
		if e, ok := asError(err); ok && m.ended(e) {
			again := *e
			again.act = actAgain
			return &again
		}
		return err
	})
}

// ended says whether an answer ends the generation, and forgets our id if the
// coordinator does not know it.
func (m *member) ended(e *Error) bool {
	switch e.Code {
	case codeUnknownMember:
		m.id = ""
		return true
	case codeIllegalGeneration, codeRebalancing:
		return true
	}
	return false
}

// joinOnce joins. The first time the coordinator gives us an id, and wants to
// be asked again with it.
func (m *member) joinOnce(ctx context.Context) (*joingroup.Response, error) {
	req := &joingroup.Request{
		GroupID:            m.cfg.Group,
		SessionTimeoutMS:   int32(m.cfg.SessionTimeout / time.Millisecond),
		RebalanceTimeoutMS: int32(m.cfg.RebalanceTimeout / time.Millisecond),
		ProtocolType:       "consumer",
		Protocols:          []joingroup.RequestProtocol{{Name: m.protocol(), Metadata: appendSubscription(nil, m.cfg.Topics, m.owned)}},
	}
	for range 2 {
		req.MemberID = m.id
		res, err := m.ask(ctx, opJoin, req, m.cfg.RebalanceTimeout+answerTimeout)
		if err != nil {
			return nil, err
		}
		r := res.(*joingroup.Response)
		if r.MemberID != "" {
			m.id = r.MemberID
		}
		if code := Code(r.ErrorCode); code == 0 {
			return r, nil
		} else if code != codeMemberIDRequired {
			return nil, m.answered(opJoin, code)
		}
	}
	return nil, m.answered(opJoin, codeMemberIDRequired)
}

func (m *member) protocol() string {
	if m.cfg.Single {
		return "tailrace-single"
	}
	return "tailrace-even"
}

// sync tells the coordinator the plan, if we lead, and learns our part of it.
func (m *member) sync(ctx context.Context, g *Generation, plan []syncgroup.RequestAssignment) ([]Partition, error) {
	req := &syncgroup.Request{
		GroupID: m.cfg.Group, GenerationID: g.id, MemberID: g.memberID,
		ProtocolType: "consumer", ProtocolName: m.protocol(), Assignments: plan,
	}
	res, err := m.ask(ctx, opSync, req, m.cfg.RebalanceTimeout+answerTimeout)
	if err != nil {
		return nil, err
	}
	r := res.(*syncgroup.Response)
	if r.ErrorCode != 0 {
		return nil, m.answered(opSync, Code(r.ErrorCode))
	}
	partitions, err := parseAssignment(r.Assignments)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", opSync, m.cfg.Group, err)
	}
	return partitions, nil
}

// serve runs fn in the generation. ended says that the generation ended, not
// fn.
func (m *member) serve(ctx context.Context, g *Generation, fn func(context.Context, *Generation) error) (ended bool, err error) {
	living, end := context.WithCancelCause(ctx)
	defer end(nil)
	returned := make(chan struct{})
	var beating sync.WaitGroup
	var lost string // why the coordinator has forgotten us
	beating.Go(func() { lost = m.beat(living, g, end, returned) })
	err = fn(living, g)
	ended = living.Err() != nil
	close(returned)
	end(nil)
	beating.Wait()
	if lost != "" {
		m.id = ""
	}
	if ended && (errors.Is(err, context.Canceled) || errors.Is(err, ErrGeneration)) {
		err = nil
	}
	return ended, err
}

const (
	beatLeast = 100 * time.Millisecond
	beatMost  = 3 * time.Second
)

// beat tells the coordinator that we live until fn has returned, and ends the
// generation when it is over. It goes on after that, because the coordinator
// waits for our next join. lost is not empty if our id is of no use any more.
func (m *member) beat(ctx context.Context, g *Generation, end context.CancelCauseFunc, returned <-chan struct{}) (lost string) {
	every := min(max(m.cfg.SessionTimeout/10, beatLeast), beatMost)
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	answered, looked := time.Now(), time.Now()
	over := func(why string) {
		if ctx.Err() == nil {
			m.cfg.Log.Info("generation ends", "group", m.cfg.Group, "generation", g.id, "because", why)
		}
		end(fmt.Errorf("%w: %s", ErrGeneration, why))
	}
	for {
		select {
		case <-returned:
			return lost
		case <-ticks.C:
		}
		silent := time.Since(answered)
		if silent >= m.cfg.SessionTimeout {
			over("the coordinator was not heard for the session timeout")
		}
		err := m.beatOnce(g, max(m.cfg.SessionTimeout-silent, every), returned)
		e, ok := asError(err)
		switch {
		case err == nil:
			answered = time.Now()
		case ok && e.Code == codeUnknownMember:
			over(err.Error())
			return e.Error()
		case ok && m.isOver(e):
			answered = time.Now()
			over(err.Error())
		case ok && !e.act.retried():
			over(err.Error())
			return lost
		}
		if g.leader && ctx.Err() == nil && time.Since(looked) >= m.cfg.LookEvery {
			looked = time.Now()
			if m.grown(ctx, g) {
				over("topics have new partitions")
			}
		}
	}
}

func (m *member) isOver(e *Error) bool {
	return e.Code == codeRebalancing || e.Code == codeIllegalGeneration || e.Code == codeFencedInstance
}

// beatOnce sends one heartbeat, at most until wait has passed or fn returned.
// It is not bound to the generation's context.
func (m *member) beatOnce(g *Generation, wait time.Duration, returned <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	stop := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-returned:
			cancel()
		case <-stop:
		}
	})
	defer waiting.Wait()
	defer close(stop)
	res, err := m.ask(ctx, opHeartbeat, &heartbeat.Request{GroupID: m.cfg.Group, GenerationID: g.id, MemberID: g.memberID}, answerTimeout)
	if err != nil {
		return err
	}
	if code := Code(res.(*heartbeatResponse).ErrorCode); code != 0 {
		return m.answered(opHeartbeat, code)
	}
	return nil
}

// init has kafka-go decode answers to Heartbeat with our type, in the whole
// process: its own takes the first half of the throttle time for the error.
func init() { protocol.Register(&heartbeat.Request{}, &heartbeatResponse{}) }

// heartbeatResponse is an answer to Heartbeat, versions 0 to 4 of the protocol.
type heartbeatResponse struct {
	_              struct{} `kafka:"min=v4,max=v4,tag"`
	ThrottleTimeMs int32    `kafka:"min=v1,max=v4"`
	ErrorCode      int16    `kafka:"min=v0,max=v4"`
}

// ApiKey is Heartbeat.
func (r *heartbeatResponse) ApiKey() protocol.ApiKey { return protocol.Heartbeat }

// leave tells the coordinator that we go, so that the others need not wait for
// the session timeout. It is no error if that cannot be said.
func (m *member) leave(ctx context.Context) {
	if m.id == "" {
		return
	}
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	req := &leavegroup.Request{GroupID: m.cfg.Group, MemberID: m.id, Members: []leavegroup.RequestMember{{MemberID: m.id}}}
	if _, err := m.ask(ctx, opLeave, req, patience); err != nil {
		m.cfg.Log.Info("could not leave group", "group", m.cfg.Group, "error", err)
	}
}

// ask sends a request to the group's coordinator, once.
func (m *member) ask(ctx context.Context, op string, req protocol.Message, wait time.Duration) (protocol.Message, error) {
	addr, err := m.find(ctx)
	if err != nil {
		return nil, err
	}
	res, err := m.client.send(ctx, op, addr, req, wait)
	if err != nil {
		m.forget()
	}
	return res, err
}

func (m *member) forget() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.coordinator = ""
}

// find returns the address of the group's coordinator.
func (m *member) find(ctx context.Context) (string, error) {
	m.mutex.Lock()
	addr := m.coordinator
	m.mutex.Unlock()
	if addr != "" {
		return addr, nil
	}
	var last error
	for _, addr := range append([]string{m.client.brokers}, m.client.layout.some()...) {
		res, err := m.client.send(ctx, opCoordinator, addr, &findcoordinator.Request{Key: m.cfg.Group}, answerTimeout)
		if err != nil {
			last = err
			continue
		}
		r := res.(*findcoordinator.Response)
		if r.ErrorCode != 0 {
			return "", m.answered(opCoordinator, Code(r.ErrorCode))
		}
		addr = net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
		m.mutex.Lock()
		defer m.mutex.Unlock()
		m.coordinator = addr
		return addr, nil
	}
	return "", last
}

// answered makes the error of a code about the group.
func (m *member) answered(op string, code Code) *Error {
	e := answered(op+" "+m.cfg.Group, "", -1, code, groupNames[code])
	if e.act == actCoordinator {
		m.forget()
	}
	if hint, ok := groupHints[code]; ok {
		e.act, e.hint = actStop, hint
	}
	return e
}
