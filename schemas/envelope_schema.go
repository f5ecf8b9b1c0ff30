package schemas

// The parts of the envelope that are the same for every table, and the schemas of the
// transaction topic. Source of the texts: Debezium's PostgresSourceInfoStructMaker,
// SchemaFactory and Envelope, through Confluent's AvroData.

const snapshotValues = `true,first,first_in_data_collection,last_in_data_collection,last,false,incremental`

var postgresSource = `{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[` +
	`{"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},` +
	`{"name":"ts_ms","type":"long"},` +
	`{"name":"snapshot","type":[{"type":"string","connect.version":1,"connect.parameters":{"allowed":"` + snapshotValues + `"},` +
	`"connect.default":"false","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},` +
	`{"name":"db","type":"string"},` + optional("sequence", "string") + `,` +
	optionalLong("ts_us") + `,` + optionalLong("ts_ns") + `,` +
	`{"name":"schema","type":"string"},{"name":"table","type":"string"},` +
	optionalLong("txId") + `,` + optionalLong("lsn") + `,` + optionalLong("xmin") + `,` +
	optional("origin", "string") + `,` + optionalLong("origin_lsn") +
	`],"connect.version":1,"connect.name":"io.debezium.connector.postgresql.Source"}`

const transactionBlock = `{"name":"transaction","type":["null",{"type":"record","name":"block","namespace":"event","fields":[` +
	`{"name":"id","type":"string"},{"name":"total_order","type":"long"},{"name":"data_collection_order","type":"long"}],` +
	`"connect.version":1,"connect.name":"event.block"}],"default":null}`

const transactionKey = `{"type":"record","name":"TransactionMetadataKey","namespace":"io.debezium.connector.common","fields":[` +
	`{"name":"id","type":"string"}],` +
	`"connect.version":1,"connect.name":"io.debezium.connector.common.TransactionMetadataKey"}`

var transactionValue = `{"type":"record","name":"TransactionMetadataValue","namespace":"io.debezium.connector.common","fields":[` +
	`{"name":"status","type":"string"},{"name":"id","type":"string"},` + optionalLong("event_count") + `,` +
	`{"name":"data_collections","type":["null",{"type":"array","items":["null",` +
	`{"type":"record","name":"collection","namespace":"event","fields":[` +
	`{"name":"data_collection","type":"string"},{"name":"event_count","type":"long"}],` +
	`"connect.version":1,"connect.name":"event.collection"}]}],"default":null},` +
	`{"name":"ts_ms","type":"long"}],` +
	`"connect.version":1,"connect.name":"io.debezium.connector.common.TransactionMetadataValue"}`

// TransactionSchemas returns the Avro schemas of the transaction topic's keys and values.
func TransactionSchemas() (key, value string) { return transactionKey, transactionValue }

func optional(name, typ string) string {
	return `{"name":"` + name + `","type":["null","` + typ + `"],"default":null}`
}

func optionalLong(name string) string { return optional(name, "long") }
