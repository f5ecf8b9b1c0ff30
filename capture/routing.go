package capture

// topicRoute is one topic that the capture writes to.
type topicRoute struct {
	name       string
	partitions int32
}
