-- The CRM. Tables of the ERP arrive in schema erp; the CRM's own columns and tables stand
-- beside them and are left alone.

CREATE SCHEMA erp;
CREATE SCHEMA crm;

CREATE TABLE crm.country (code varchar(3) PRIMARY KEY, name text NOT NULL);
INSERT INTO crm.country VALUES ('DK', 'Denmark'), ('GB', 'United Kingdom'), ('IE', 'Ireland');

CREATE TABLE erp.kna1 (
    mandt char(3), kunnr varchar(10), name1 varchar(35),
    land1 varchar(3) NOT NULL REFERENCES crm.country,    -- a country that the CRM does not know is refused
    ort01 varchar(35), pstlz varchar(10), telf1 varchar(16), loevm char(1), erdat char(8),
    account_manager text,                                -- the CRM's own
    PRIMARY KEY (mandt, kunnr)
);
-- No foreign key between the two: in mode keys, tables do not wait for one another.
CREATE TABLE erp.vbak (
    mandt char(3), vbeln varchar(10), kunnr varchar(10), audat char(8), netwr numeric(15,2), waerk varchar(5),
    PRIMARY KEY (mandt, vbeln)
);

CREATE VIEW crm.accounts AS
SELECT ltrim(k.kunnr, '0') AS number, k.name1 AS name, c.name AS country, nullif(trim(k.ort01), '') AS city, k.account_manager,
       (SELECT count(*) FROM erp.vbak v WHERE v.mandt = k.mandt AND v.kunnr = k.kunnr) AS orders
FROM erp.kna1 k JOIN crm.country c ON c.code = k.land1
WHERE k.mandt = '100' AND k.loevm = ' ';
