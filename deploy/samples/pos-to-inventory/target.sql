-- The inventory. What the tills write arrives in one schema for each store; a trigger there
-- books every line that comes, changes or goes into the stock. Sink and triggers work in one
-- transaction: a kill leaves no line booked twice, and none unbooked.

CREATE SCHEMA inventory;

CREATE TABLE inventory.article (gtin char(14) PRIMARY KEY, name text NOT NULL, reorder_at numeric NOT NULL DEFAULT 0);
CREATE TABLE inventory.delivery (id serial PRIMARY KEY, store text NOT NULL, gtin char(14) NOT NULL REFERENCES inventory.article, qty numeric NOT NULL);
CREATE TABLE inventory.stock (                       -- a row of one store's: the stores do not wait for one another
    store text, gtin char(14), on_hand numeric NOT NULL,
    PRIMARY KEY (store, gtin)
);

CREATE FUNCTION inventory.gtin(ean text) RETURNS char(14) LANGUAGE sql IMMUTABLE AS
    $$ SELECT lpad(trim(ean), 14, '0')::char(14) $$;

CREATE FUNCTION inventory.book(store text, gtin char(14), qty numeric) RETURNS void LANGUAGE sql AS $$
    INSERT INTO inventory.stock AS s VALUES (store, gtin, qty)
    ON CONFLICT ON CONSTRAINT stock_pkey DO UPDATE SET on_hand = s.on_hand + excluded.on_hand
$$;

CREATE FUNCTION inventory.delivered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.book(NEW.store, NEW.gtin, NEW.qty);
    RETURN NULL;
END $$;
CREATE TRIGGER book AFTER INSERT ON inventory.delivery FOR EACH ROW EXECUTE FUNCTION inventory.delivered();

-- What a line sold is booked out, and what it had sold before is booked in again.
CREATE FUNCTION inventory.sold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.voided IS DISTINCT FROM 'J' THEN
        PERFORM inventory.book(TG_TABLE_SCHEMA, inventory.gtin(OLD.ean), OLD.qty);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.voided IS DISTINCT FROM 'J' THEN
        PERFORM inventory.book(TG_TABLE_SCHEMA, inventory.gtin(NEW.ean), -NEW.qty);
    END IF;
    RETURN NULL;
END $$;

-- A table that is emptied (a TRUNCATE at the source, or before all rows are read anew) has
-- sold nothing.
CREATE FUNCTION inventory.emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT inventory.book(%L, inventory.gtin(ean), sum(qty)) FROM %I.receipt_line WHERE voided IS DISTINCT FROM ''J'' GROUP BY inventory.gtin(ean)',
                   TG_TABLE_SCHEMA, TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;

-- A new store is one call, and a capture and a sink in tailrace.yaml.
CREATE FUNCTION inventory.open_store(store text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA %I', store);
    EXECUTE format('CREATE TABLE %I.receipt (receipt_no int PRIMARY KEY, till smallint, opened varchar(16), total_cents int, voided char(1))', store);
    EXECUTE format('CREATE TABLE %I.receipt_line (receipt_no int, line_no smallint, ean varchar(16), qty numeric(9,3), unit_cents int, voided char(1), PRIMARY KEY (receipt_no, line_no))', store);
    EXECUTE format('CREATE TRIGGER book AFTER INSERT OR UPDATE OR DELETE ON %I.receipt_line FOR EACH ROW EXECUTE FUNCTION inventory.sold()', store);
    EXECUTE format('CREATE TRIGGER book_all BEFORE TRUNCATE ON %I.receipt_line FOR EACH STATEMENT EXECUTE FUNCTION inventory.emptied()', store);
END $$;

SELECT inventory.open_store('store_north');
SELECT inventory.open_store('store_south');

INSERT INTO inventory.article VALUES ('04006381333931', 'pen', 50), ('02212345000005', 'cheese', 2), ('05000000000005', 'cup', 5);
INSERT INTO inventory.delivery (store, gtin, qty) VALUES
    ('store_north', '04006381333931', 100), ('store_north', '02212345000005', 12.5),
    ('store_south', '04006381333931', 60), ('store_south', '05000000000005', 8);

CREATE VIEW inventory.available AS
SELECT a.name, s.store, s.on_hand, s.on_hand < a.reorder_at AS reorder
FROM inventory.stock s JOIN inventory.article a USING (gtin);

-- The stock against what it must be by deliveries and lines: this is empty, whenever you look.
CREATE VIEW inventory.differences AS
SELECT store, gtin, sum(booked) AS booked, sum(counted) AS counted
FROM (SELECT store, gtin, on_hand AS booked, 0 AS counted FROM inventory.stock
      UNION ALL SELECT store, gtin, 0, qty FROM inventory.delivery
      UNION ALL SELECT 'store_north', inventory.gtin(ean), 0, -qty FROM store_north.receipt_line WHERE voided IS DISTINCT FROM 'J'
      UNION ALL SELECT 'store_south', inventory.gtin(ean), 0, -qty FROM store_south.receipt_line WHERE voided IS DISTINCT FROM 'J') x
GROUP BY store, gtin HAVING sum(booked) <> sum(counted);
