// Package webhook delivers changes over HTTP: each is a CloudEvents 1.0 event that is sent
// with POST, or one of a batch of such events.
//
// # One change
//
//	Sink.Apply            splits the batch at TRUNCATEs
//	writer.event          Avro → id, attributes, JSON, address
//	lanes.next, Sink.deliver   the events of a key one after the other, several keys at a time
//	client.send           an attempt, a verdict, a pause, another attempt
//	guard.control         looks at the address before a connection is made
//	Positions.Write       when all are acknowledged
//
// # What is promised
//
// Every change is delivered at least once, those of one key in their order; an event that
// comes again has the same id and the same body. The id is made of the change's place in
// the source's log (eventID), so that it is the same after whatever crash, and in whatever
// process; it is also sent as webhook-id. A receiver that remembers ids has each change
// once. An acknowledgement is a complete answer with a status of 2xx.
//
// A receiver may still work on a request that it has not answered in time, or that a
// process which died had sent, when the next attempt comes, and the next change of the
// same key after that: order holds for what it begins, not for what it ends.
//
// # Position and fence
//
// HTTP keeps no position for us, and the offset that a consumer group keeps is not enough:
// it has no n, so that a topic that was made anew would pass for the old one, and it is
// forgotten when the group has been empty for a week. So positions and fences are in a
// compacted topic, see sinks.Positions. A position is written when everything before it is
// acknowledged; what was delivered after the last one is delivered again.
//
// A member that was frozen, and replaced, and wakes up sends what is under way: no fence
// reaches into the target. It begins nothing new once its group says that it is out, which
// is the first thing that it asks, nor after its next position, which is void.
//
// # Trouble
//
// Network errors, statuses 3xx, 408, 425, 429 and 5xx, and answers that break off are tried
// again, with growing pauses, or after what Retry-After says, for two minutes; then the run
// ends with an error, and its supervisor starts it anew. 401 and 407 end the sink: they are
// about us. Any other 4xx is about the change: a *sinks.Refused. So are a template that asks
// for a column that is null, and a value that JSON cannot hold.
//
// # Safety
//
// Where a connection leads is decided when it is made, by the address and not by the name:
// see guard. Redirects are not followed, proxies are not used, and nothing that the target
// says is shown in errors or logs but the status; neither is the path of its address, which
// may hold a secret. Requests are signed as Standard Webhooks says, with every secret there
// is, so that secrets can be changed one side after the other.
package webhook
