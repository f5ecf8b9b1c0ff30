package doctor

import (
	capturepg "github.com/tailrace/tailrace/capture/postgres"
	sinkpg "github.com/tailrace/tailrace/sinks/postgres"
)

// Codes of findings that are not about a database.
const (
	CodeConfig            = "CONFIG"
	CodeLoop              = "CONFIG_LOOP"
	CodeBrokerPlaintext   = "BROKER_PLAINTEXT"
	CodeBrokerSettings    = "BROKER_SETTINGS"
	CodeBrokerConnect     = "BROKER_CONNECT"
	CodeBrokerAuth        = "BROKER_AUTH"
	CodeBrokerCreate      = "BROKER_CREATE"
	CodeBrokerProduce     = "BROKER_PRODUCE"
	CodeBrokerTransaction = "BROKER_TRANSACTION"
	CodeBrokerRead        = "BROKER_READ"
	CodeBrokerDelete      = "BROKER_DELETE"
	CodeBrokerDir         = "BROKER_DIR"
	CodeBrokerSpace       = "BROKER_SPACE"
	CodeBrokerListen      = "BROKER_LISTEN"
	CodeRegistryPlaintext = "REGISTRY_PLAINTEXT"
	CodeRegistryConnect   = "REGISTRY_CONNECT"
	CodeRegistryAuth      = "REGISTRY_AUTH"
	CodeRegistryRegister  = "REGISTRY_REGISTER"
	CodeRegistryDelete    = "REGISTRY_DELETE"
	CodeRegistryListen    = "REGISTRY_LISTEN"
	CodeHTTPListen        = "HTTP_LISTEN"
	CodeWebhookSettings   = "WEBHOOK_SETTINGS"
)

// Code is what a stable code says.
type Code struct {
	Code    string `json:"code"`
	Worst   string `json:"worst"` // severity that it can have at most
	Meaning string `json:"meaning"`
}

// Codes are all codes that a finding can have. A code is never given another meaning.
var Codes = []Code{
	{CodeConfig, Error, "the configuration as a whole"},
	{CodeLoop, Error, "a sink writes what its own capture reads"},

	{CodeBrokerPlaintext, Warning, "Kafka is reached over a network without TLS"},
	{CodeBrokerSettings, Error, "the client's settings cannot be used: a file of TLS, a mechanism"},
	{CodeBrokerConnect, Error, "the broker is reached"},
	{CodeBrokerAuth, Error, "the broker refuses user or password"},
	{CodeBrokerCreate, Error, "a topic is created"},
	{CodeBrokerProduce, Error, "a record is written and read"},
	{CodeBrokerTransaction, Error, "a transaction is begun and committed"},
	{CodeBrokerRead, Error, "the record is read back"},
	{CodeBrokerDelete, Warning, "the check's own topic is deleted again"},
	{CodeBrokerDir, Error, "the embedded broker's data directory can be written"},
	{CodeBrokerSpace, Error, "its disk has more free space than the floor"},
	{CodeBrokerListen, Error, "its address is free"},

	{CodeRegistryPlaintext, Warning, "the registry's password goes over a network in clear"},
	{CodeRegistryConnect, Error, "the registry is reached and answers as one"},
	{CodeRegistryAuth, Error, "the registry refuses user or password"},
	{CodeRegistryRegister, Error, "a schema is registered and read back"},
	{CodeRegistryDelete, Warning, "the check's own subject is deleted again"},
	{CodeRegistryListen, Error, "our own registry's address is free"},
	{CodeHTTPListen, Error, "the address of metrics, health and status is free"},

	{CodeWebhookSettings, Error, "the settings of a webhook can be used: its files of TLS"},

	{capturepg.CodeConnect, Error, "the database is reached"},
	{capturepg.CodeAuth, Error, "the password is refused"},
	{capturepg.CodeLogin, Error, "pg_hba.conf or the role itself do not let it in"},
	{capturepg.CodeDatabase, Error, "there is no such database"},
	{capturepg.CodeGrantConnect, Error, "the role has no CONNECT on the database"},
	{capturepg.CodeConnections, Error, "no connection is free, of the server's or the role's"},
	{capturepg.CodeTLS, Warning, "the database is reached over a network without TLS"},
	{capturepg.CodeVersion, Error, "PostgreSQL 14 to 18"},
	{capturepg.CodeEncoding, Warning, "the database's encoding is SQL_ASCII"},
	{capturepg.CodeWALLevel, Error, "wal_level is logical"},
	{capturepg.CodeStandby, Error, "the server is a standby"},
	{capturepg.CodeSlots, Error, "a replication slot is free"},
	{capturepg.CodeSenders, Error, "a walsender is free"},
	{capturepg.CodeReplication, Error, "the role may connect for replication"},
	{capturepg.CodeSlotCreate, Error, "a temporary slot is made"},
	{capturepg.CodeSlotWait, Warning, "a slot would wait for a transaction that does not end"},
	{capturepg.CodeSlotLeft, Warning, "the temporary slot is dropped again"},
	{capturepg.CodeSlot, OK, "the capture's own slot as it is"},
	{capturepg.CodeSlotForeign, Error, "the capture's slot is of another plugin, another database, or physical"},
	{capturepg.CodeSlotLost, Error, "the server invalidated the capture's slot"},
	{capturepg.CodeSlotUnreserved, Warning, "the server is about to invalidate it"},
	{capturepg.CodeSlotRetains, Warning, "nobody reads the capture's slot, and it keeps much log"},
	{capturepg.CodeSlotPublication, Error, "the capture's slot is there, its publication is not"},
	{capturepg.CodePublication, Error, "the publication is there, or can be made"},
	{capturepg.CodePublicationSet, Error, "it holds the tables of the configuration, or can be altered so"},
	{capturepg.CodePublicationUsed, Error, "a lock keeps the publication from being made"},
	{capturepg.CodeTables, Error, "a table that is named is not there, or no pattern matches any"},
	{capturepg.CodeNoKey, Error, "a table has neither a key nor REPLICA IDENTITY FULL"},
	{capturepg.CodeSelect, Error, "the tables may be read"},
	{capturepg.CodeRowSecurity, Error, "row-level security hides rows"},
	{capturepg.CodeRead, Error, "a table could not be read for another reason"},
	{capturepg.CodeDecode, Error, "what is written to the log comes out of a slot (deep)"},
	{capturepg.CodeSyncCommit, Warning, "synchronous_commit is off"},
	{capturepg.CodeSenderTimeout, Warning, "wal_sender_timeout is below 10 s, or 0"},
	{capturepg.CodeWALKeep, Warning, "max_slot_wal_keep_size is below 1 GiB, or below what a day writes"},
	{capturepg.CodeIdleTimeout, Warning, "idle_replication_slot_timeout is set"},
	{capturepg.CodeSuperuser, Warning, "the role is a superuser; ok: it has no rights to spare"},
	{capturepg.CodeCreateDB, Warning, "the role may create databases"},
	{capturepg.CodeCreateRole, Warning, "the role may create roles"},
	{capturepg.CodeBypassRLS, Warning, "the role bypasses row-level security, and no table has any"},
	{capturepg.CodeMember, Warning, "the role is a member of one that reaches everything, or files and programs"},
	{capturepg.CodeOwner, Warning, "the role owns tables, and does not have to"},
	{capturepg.CodeWrites, Warning, "the role may change tables that it is to read"},
	{capturepg.CodeUnfinished, Error, "the check did not come to its end"},

	{sinkpg.CodeConnect, Error, "the target is reached"},
	{sinkpg.CodeAuth, Error, "the password is refused"},
	{sinkpg.CodeLogin, Error, "pg_hba.conf or the role itself do not let it in"},
	{sinkpg.CodeDatabase, Error, "there is no such database"},
	{sinkpg.CodeGrantConnect, Error, "the role has no CONNECT on the database"},
	{sinkpg.CodeConnections, Error, "no connection is free, of the server's or the role's"},
	{sinkpg.CodeTLS, Warning, "the target is reached over a network without TLS"},
	{sinkpg.CodeVersion, Warning, "PostgreSQL 14 to 18"},
	{sinkpg.CodeEncoding, Warning, "the target's encoding is not UTF8"},
	{sinkpg.CodeReadOnly, Error, "the target takes no writes"},
	{sinkpg.CodePosition, Error, "the sink's position is written, in schema tailrace"},
	{sinkpg.CodeTemporary, Error, "a temporary table is made"},
	{sinkpg.CodeCreate, Error, "a table is made and written"},
	{sinkpg.CodeTable, Error, "a table that is there takes changes"},
	{sinkpg.CodeKey, Warning, "a table that is there has no unique constraint"},
	{sinkpg.CodeRowSecurity, Warning, "row-level security holds for the sink"},
	{sinkpg.CodeSuperuser, Warning, "the role is a superuser; ok: it has no rights to spare"},
	{sinkpg.CodeCreateDB, Warning, "the role may create databases"},
	{sinkpg.CodeCreateRole, Warning, "the role may create roles"},
	{sinkpg.CodeReplication, Warning, "the role may replicate"},
	{sinkpg.CodeMember, Warning, "the role is a member of one that reaches everything, or files and programs"},
	{sinkpg.CodeUnfinished, Error, "the check did not come to its end"},
}
