-- The application's side: the tables arrive in schema legacy as they are, made by the sink,
-- or here, where something is to be said about them. The application reads schema app, whose
-- views speak its language; when a table moves into the application, its view becomes one.

CREATE SCHEMA legacy;
CREATE SCHEMA app;

CREATE TABLE legacy."CUSMST" (
    "CUCUST" char(8) PRIMARY KEY, "CUNAME" char(30), "CUCITY" char(20), "CUSTAT" char(1),
    "CULIMT" numeric(13,5), "CUDATE" numeric(8,0)
);
CREATE TABLE legacy."ORDHDR" (
    "OHCONO" numeric(3,0), "OHORDN" numeric(7,0), "OHCUST" char(8), "OHDATE" numeric(8,0), "OHSTAT" char(2),
    "OHLINS" numeric(3,0), "OHTOTL" numeric(13,5), "OHTEXT" varchar(200),
    PRIMARY KEY ("OHCONO", "OHORDN")
);
CREATE INDEX ON legacy."ORDHDR" ("OHCUST");      -- the application's own
CREATE TABLE legacy."ORDLIN" (
    "OLCONO" numeric(3,0), "OLORDN" numeric(7,0), "OLLINE" numeric(3,0), "OLITEM" char(15),
    "OLQTY" numeric(9,3), "OLPRIC" numeric(13,5),
    PRIMARY KEY ("OLCONO", "OLORDN", "OLLINE")
);                                               -- HSTLOG is left to the sink

CREATE FUNCTION app.day(n numeric) RETURNS date LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN n BETWEEN 19000101 AND 29991231 THEN to_date(n::text, 'YYYYMMDD') END $$;

CREATE VIEW app.customers AS
SELECT trim("CUCUST") AS id, trim("CUNAME") AS name, trim("CUCITY") AS city,
       CASE "CUSTAT" WHEN 'H' THEN 'on hold' WHEN 'D' THEN 'closed' ELSE 'active' END AS state,
       "CULIMT"::numeric(12,2) AS credit_limit, app.day("CUDATE") AS since
FROM legacy."CUSMST";

CREATE VIEW app.orders AS
SELECT "OHCONO"::int || '-' || "OHORDN"::int AS id, trim("OHCUST") AS customer_id, app.day("OHDATE") AS placed_on,
       CASE "OHSTAT" WHEN '10' THEN 'entered' WHEN '20' THEN 'picked' WHEN '45' THEN 'shipped' WHEN '99' THEN 'cancelled' END AS state,
       "OHTOTL"::numeric(12,2) AS total, nullif("OHTEXT", '') AS note
FROM legacy."ORDHDR";

CREATE VIEW app.order_lines AS
SELECT "OLCONO"::int || '-' || "OLORDN"::int AS order_id, "OLLINE"::int AS line, trim("OLITEM") AS item, "OLQTY" AS quantity, "OLPRIC" AS price
FROM legacy."ORDLIN";

-- Orders whose lines do not add up to what their header says. The programs of the legacy
-- system write header and lines in one transaction; so this is empty, whenever you look.
CREATE VIEW app.torn_orders AS
SELECT "OHCONO", "OHORDN", "OHTOTL", l.total, "OHLINS", l.lines
FROM legacy."ORDHDR" LEFT JOIN LATERAL (
    SELECT coalesce(sum("OLQTY" * "OLPRIC"), 0) AS total, count(*) AS lines
    FROM legacy."ORDLIN" WHERE "OLCONO" = "OHCONO" AND "OLORDN" = "OHORDN") l ON true
WHERE l.total <> "OHTOTL" OR l.lines <> "OHLINS";
