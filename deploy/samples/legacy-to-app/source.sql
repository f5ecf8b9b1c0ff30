-- Order entry, carried over in 2009 from a midrange machine, and in 1994 to it from punched
-- cards: upper-case names of six letters, blanks in place of null, dates as numbers, money
-- with five decimals.

CREATE TABLE "CUSMST" (                          -- customer master
    "CUCUST" char(8)       NOT NULL PRIMARY KEY, -- left-justified, padded with blanks
    "CUNAME" char(30)      NOT NULL DEFAULT '',
    "CUCITY" char(20)      NOT NULL DEFAULT '',
    "CUSTAT" char(1)       NOT NULL DEFAULT ' ', -- blank: active, H: on hold, D: deleted, but still there
    "CULIMT" numeric(13,5) NOT NULL DEFAULT 0,   -- credit limit
    "CUDATE" numeric(8,0)  NOT NULL DEFAULT 0,   -- since when, YYYYMMDD; 0 or 99999999: not known
    "CUPSWD" char(10)      NOT NULL DEFAULT '',  -- of the telephone ordering, never removed
    "CUFILL" char(40)      NOT NULL DEFAULT ''
);

CREATE TABLE "ORDHDR" (                          -- order header
    "OHCONO" numeric(3,0)  NOT NULL,             -- company
    "OHORDN" numeric(7,0)  NOT NULL,
    "OHCUST" char(8)       NOT NULL,             -- no foreign key: there never was one
    "OHDATE" numeric(8,0)  NOT NULL DEFAULT 0,
    "OHSTAT" char(2)       NOT NULL DEFAULT '10',-- 10 entered, 20 picked, 45 shipped, 99 cancelled
    "OHLINS" numeric(3,0)  NOT NULL DEFAULT 0,   -- number of lines, kept by the programs
    "OHTOTL" numeric(13,5) NOT NULL DEFAULT 0,   -- total of the lines, kept by the programs
    "OHTEXT" varchar(200),
    PRIMARY KEY ("OHCONO", "OHORDN")
);

CREATE TABLE "ORDLIN" (                          -- order line
    "OLCONO" numeric(3,0)  NOT NULL,
    "OLORDN" numeric(7,0)  NOT NULL,
    "OLLINE" numeric(3,0)  NOT NULL,
    "OLITEM" char(15)      NOT NULL,
    "OLQTY"  numeric(9,3)  NOT NULL,
    "OLPRIC" numeric(13,5) NOT NULL,
    PRIMARY KEY ("OLCONO", "OLORDN", "OLLINE")
);

CREATE TABLE "HSTLOG" (                          -- what the programs say they did; the same line may stand twice
    "HLPGM"  char(10)      NOT NULL,
    "HLDATE" numeric(8,0)  NOT NULL,
    "HLTEXT" varchar(80)
);
ALTER TABLE "HSTLOG" REPLICA IDENTITY FULL;      -- without a key, changes can only be told by whole rows

INSERT INTO "CUSMST" VALUES
    ('10001', 'MULLER & SOHNE', 'WIEN', ' ', 5000, 19940301, 'SESAM', ''),
    ('10002', 'O''HARA LTD', 'CORK', 'H', 0, 0, '1234', 'X'),
    ('10003', 'CAFÉ DE L''ÉTÉ', 'LIÈGE', 'D', 250.5, 99999999, '', '');

INSERT INTO "ORDHDR" VALUES
    (1, 700001, '10001', 20240229, '45', 2, 31.5, 'leave at the gate' || chr(10) || 'ring twice'),
    (1, 700002, '10002', 0,        '10', 1, 7.25, NULL),
    (2, 700001, '10001', 20240301, '99', 0, 0,    '');

INSERT INTO "ORDLIN" VALUES
    (1, 700001, 1, 'BOLT M8', 100, 0.115),
    (1, 700001, 2, 'HAMMER', 1, 20),
    (1, 700002, 1, 'PAINT\RED', 0.5, 14.5);

INSERT INTO "HSTLOG" VALUES
    ('ORDENT', 20240229, 'START'), ('ORDENT', 20240229, 'START'), ('ORDENT', 20240229, NULL);
