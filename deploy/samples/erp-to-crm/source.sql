-- An ERP system: table and column names of four letters in German, a client column before
-- every key, numbers with leading zeros as text, days as char(8), flags that are X or blank,
-- and every column NOT NULL, with a blank for what is not known.

CREATE SCHEMA erp;

CREATE TABLE erp.kna1 (                              -- customer master
    mandt  char(3)     NOT NULL DEFAULT '100',       -- client of the installation
    kunnr  varchar(10) NOT NULL,                     -- 0000004711
    name1  varchar(35) NOT NULL DEFAULT ' ',
    land1  varchar(3)  NOT NULL DEFAULT ' ',         -- country
    ort01  varchar(35) NOT NULL DEFAULT ' ',
    pstlz  varchar(10) NOT NULL DEFAULT ' ',
    telf1  varchar(16) NOT NULL DEFAULT ' ',
    stcd1  varchar(16) NOT NULL DEFAULT ' ',         -- tax number: nobody's business
    loevm  char(1)     NOT NULL DEFAULT ' ',         -- X: marked for deletion
    erdat  char(8)     NOT NULL DEFAULT '00000000',
    katr1  varchar(2)  NOT NULL DEFAULT ' ',
    katr2  varchar(2)  NOT NULL DEFAULT ' ',
    zzfoo  varchar(20) NOT NULL DEFAULT ' ',         -- of a project that ended in 2011
    PRIMARY KEY (mandt, kunnr)
);

CREATE TABLE erp.vbak (                              -- sales orders
    mandt        char(3)       NOT NULL DEFAULT '100',
    vbeln        varchar(10)   NOT NULL,
    kunnr        varchar(10)   NOT NULL DEFAULT ' ', -- not always one that kna1 has
    audat        char(8)       NOT NULL DEFAULT '00000000',
    netwr        numeric(15,2) NOT NULL DEFAULT 0,
    waerk        varchar(5)    NOT NULL DEFAULT ' ', -- currency
    netwr_intern numeric(15,2) NOT NULL DEFAULT 0,
    marge        numeric(5,2)  NOT NULL DEFAULT 0,   -- what is earned by it
    ernam        varchar(12)   NOT NULL DEFAULT ' ', -- who entered it
    PRIMARY KEY (mandt, vbeln)
);

CREATE TABLE erp.pa0008 (                            -- wages: not captured at all
    mandt char(3) NOT NULL, pernr varchar(8) NOT NULL, bet01 numeric(13,2) NOT NULL, PRIMARY KEY (mandt, pernr)
);

INSERT INTO erp.kna1 (kunnr, name1, land1, ort01, pstlz, telf1, stcd1, loevm, erdat) VALUES
    ('0000000017', 'Harbour Tools', 'GB', 'Hull', 'HU1 1AA', '01482 000000', 'GB 999 9999 73', ' ', '20010405'),
    ('0000000018', 'Søndergård A/S', 'DK', 'Århus', '8000', '+45 00000000', 'DK-13585628', ' ', '20050911'),
    ('0000000019', 'Old Mill', 'IE', ' ', ' ', ' ', 'IE6388047V', 'X', '00000000');

INSERT INTO erp.vbak (vbeln, kunnr, audat, netwr, waerk, netwr_intern, marge, ernam) VALUES
    ('0090000001', '0000000017', '20260105', 1250.00, 'GBP', 1000, 20.00, 'JSMITH'),
    ('0090000002', '0000000018', '20260106', 99.90, 'DKK', 80, 19.90, 'JSMITH'),
    ('0090000003', '          ', '00000000', 0, ' ', 0, 0, 'BATCH');

INSERT INTO erp.pa0008 VALUES ('100', '00001234', 4200);
