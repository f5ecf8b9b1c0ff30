package stream

import "strconv"

// A Code is an error code of Kafka's protocol, as a broker answered it. 0 is
// no error.
type Code int16

// The codes that this package names; what is done about each stands in codes.
const (
	codeOffsetOutOfRange       Code = 1
	codeUnknownTopic           Code = 3
	codeLeaderNotAvailable     Code = 5
	codeMessageTooLarge        Code = 10
	codeCoordinatorUnavailable Code = 15
	codeInvalidTopic           Code = 17
	codeRecordListTooLarge     Code = 18
	codeTopicNotAuthorized     Code = 29
	codeGroupNotAuthorized     Code = 30
	codeClusterNotAuthorized   Code = 31
	codeUnsupportedSASL        Code = 33
	codeIllegalSASLState       Code = 34
	codeUnsupportedVersion     Code = 35
	codeTopicExists            Code = 36
	codeInvalidReplication     Code = 38
	codePolicyViolation        Code = 44
	codeDuplicateSequence      Code = 46
	codeInvalidTxnTimeout      Code = 50
	codeConcurrentTransactions Code = 51
	codeTxnIDNotAuthorized     Code = 53
	codeStorage                Code = 56
	codeNotAttempted           Code = 55
	codeSASLFailed             Code = 58
	codeInvalidRecord          Code = 87
)

// An action is what this package does about an error.
type action uint8

const (
	actEnd         action = iota // end the run: nothing is known that would help, a new run may
	actAgain                     // the broker answered that it could not now: send it again
	actRefresh                   // ask for the leaders or the controller again, then send it again
	actCoordinator               // look for the coordinator again, then send it again
	actUnanswered                // sent, no answer: it may or may not have been done
	actUnsent                    // never sent: sending it again cannot do it twice
	actAccept                    // what was asked for is so already
	actRecover                   // this producer is at its end, a new one starts by the recovery
	actFenced                    // another producer has taken over the transactional id
	actStop                      // a person has to change something first
)

// codes holds what a code is called and what is done about it. The table is
// our own because kafka-go's Temporary() is false for CONCURRENT_TRANSACTIONS,
// which must be retried, and true for CORRUPT_MESSAGE, which would loop on a
// mistake of ours.
var codes = map[Code]struct {
	name string
	act  action
}{
	-1:                         {"UNKNOWN_SERVER_ERROR", actEnd},
	codeOffsetOutOfRange:       {"OFFSET_OUT_OF_RANGE", actEnd},
	2:                          {"CORRUPT_MESSAGE", actStop},
	codeUnknownTopic:           {"UNKNOWN_TOPIC_OR_PARTITION", actRefresh},
	codeLeaderNotAvailable:     {"LEADER_NOT_AVAILABLE", actRefresh},
	6:                          {"NOT_LEADER_OR_FOLLOWER", actRefresh},
	7:                          {"REQUEST_TIMED_OUT", actAgain},
	8:                          {"BROKER_NOT_AVAILABLE", actRefresh},
	9:                          {"REPLICA_NOT_AVAILABLE", actRefresh},
	codeMessageTooLarge:        {"MESSAGE_TOO_LARGE", actStop},
	13:                         {"NETWORK_EXCEPTION", actRefresh},
	14:                         {"COORDINATOR_LOAD_IN_PROGRESS", actCoordinator},
	codeCoordinatorUnavailable: {"COORDINATOR_NOT_AVAILABLE", actCoordinator},
	16:                         {"NOT_COORDINATOR", actCoordinator},
	codeInvalidTopic:           {"INVALID_TOPIC_EXCEPTION", actStop},
	codeRecordListTooLarge:     {"RECORD_LIST_TOO_LARGE", actStop},
	19:                         {"NOT_ENOUGH_REPLICAS", actAgain},
	20:                         {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", actAgain},
	21:                         {"INVALID_REQUIRED_ACKS", actStop},
	codeTopicNotAuthorized:     {"TOPIC_AUTHORIZATION_FAILED", actStop},
	codeGroupNotAuthorized:     {"GROUP_AUTHORIZATION_FAILED", actStop},
	codeClusterNotAuthorized:   {"CLUSTER_AUTHORIZATION_FAILED", actStop},
	32:                         {"INVALID_TIMESTAMP", actStop},
	codeUnsupportedSASL:        {"UNSUPPORTED_SASL_MECHANISM", actStop},
	codeIllegalSASLState:       {"ILLEGAL_SASL_STATE", actStop},
	codeUnsupportedVersion:     {"UNSUPPORTED_VERSION", actStop},
	codeTopicExists:            {"TOPIC_ALREADY_EXISTS", actAccept},
	37:                         {"INVALID_PARTITIONS", actStop},
	codeInvalidReplication:     {"INVALID_REPLICATION_FACTOR", actStop},
	39:                         {"INVALID_REPLICA_ASSIGNMENT", actStop},
	40:                         {"INVALID_CONFIG", actStop},
	41:                         {"NOT_CONTROLLER", actRefresh},
	42:                         {"INVALID_REQUEST", actEnd},
	43:                         {"UNSUPPORTED_FOR_MESSAGE_FORMAT", actStop},
	codePolicyViolation:        {"POLICY_VIOLATION", actStop},
	45:                         {"OUT_OF_ORDER_SEQUENCE_NUMBER", actRecover},
	codeDuplicateSequence:      {"DUPLICATE_SEQUENCE_NUMBER", actAccept},
	47:                         {"INVALID_PRODUCER_EPOCH", actFenced},
	48:                         {"INVALID_TXN_STATE", actRecover},
	49:                         {"INVALID_PRODUCER_ID_MAPPING", actRecover},
	codeInvalidTxnTimeout:      {"INVALID_TRANSACTION_TIMEOUT", actStop},
	codeConcurrentTransactions: {"CONCURRENT_TRANSACTIONS", actAgain},
	52:                         {"TRANSACTION_COORDINATOR_FENCED", actCoordinator},
	codeTxnIDNotAuthorized:     {"TRANSACTIONAL_ID_AUTHORIZATION_FAILED", actStop},
	54:                         {"SECURITY_DISABLED", actStop},
	codeNotAttempted:           {"OPERATION_NOT_ATTEMPTED", actAgain},
	codeStorage:                {"KAFKA_STORAGE_ERROR", actRefresh},
	codeSASLFailed:             {"SASL_AUTHENTICATION_FAILED", actStop},
	59:                         {"UNKNOWN_PRODUCER_ID", actRecover},
	65:                         {"DELEGATION_TOKEN_AUTHORIZATION_FAILED", actStop},
	66:                         {"DELEGATION_TOKEN_EXPIRED", actStop},
	72:                         {"LISTENER_NOT_FOUND", actRefresh},
	73:                         {"TOPIC_DELETION_DISABLED", actStop},
	74:                         {"FENCED_LEADER_EPOCH", actRefresh},
	75:                         {"UNKNOWN_LEADER_EPOCH", actRefresh},
	76:                         {"UNSUPPORTED_COMPRESSION_TYPE", actStop},
	78:                         {"OFFSET_NOT_AVAILABLE", actAgain},
	80:                         {"PREFERRED_LEADER_NOT_AVAILABLE", actRefresh},
	83:                         {"ELIGIBLE_LEADERS_NOT_AVAILABLE", actRefresh},
	codeInvalidRecord:          {"INVALID_RECORD", actStop},
	89:                         {"THROTTLING_QUOTA_EXCEEDED", actAgain},
	90:                         {"PRODUCER_FENCED", actFenced},
	100:                        {"UNKNOWN_TOPIC_ID", actRefresh},
	103:                        {"INCONSISTENT_TOPIC_ID", actRefresh},
	120:                        {"TRANSACTION_ABORTABLE", actRecover},
}

// String returns Kafka's name of the code.
func (c Code) String() string {
	if c == 0 {
		return "NONE"
	}
	if d, ok := codes[c]; ok {
		return d.name
	}
	return "error code " + strconv.Itoa(int(c))
}

// action says what is done about c. A code that is not in the table ends the
// run.
func (c Code) action() action { return codes[c].act }

// retried says whether what failed is sent again.
func (a action) retried() bool {
	switch a {
	case actAgain, actRefresh, actCoordinator, actUnanswered, actUnsent:
		return true
	}
	return false
}
