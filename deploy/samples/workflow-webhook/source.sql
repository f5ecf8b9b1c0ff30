-- A shop that grew: status codes with gaps, an order number that people type, a payment
-- table that a bank's nightly job fills, sometimes before the order is there.

CREATE TABLE orders (
    order_no  varchar(12)   PRIMARY KEY,             -- A-1001; renumbered when two shops were merged
    status    smallint      NOT NULL DEFAULT 1,      -- 1 entered, 3 shipped, 4 delivered, 9 cancelled; 2 is no longer used
    total     numeric(10,2) NOT NULL DEFAULT 0,
    cust_mail text,
    remarks   text,
    chg_ts    timestamp     NOT NULL DEFAULT now()   -- of the last change, by whatever clock
);

CREATE TABLE payment (
    id       bigserial PRIMARY KEY,
    order_no varchar(12)   NOT NULL,                 -- no foreign key: the bank is faster than we are
    amount   numeric(10,2) NOT NULL                  -- negative: paid back
);

INSERT INTO orders VALUES
    ('A-1001', 4, 20.00, 'ann@example.org', 'gift wrap', '2026-01-05 10:00'),
    ('A-1002', 1, 12.50, 'bob@example.org', NULL, '2026-01-06 11:30');
INSERT INTO payment (order_no, amount) VALUES ('A-1001', 20.00), ('A-1002', 10.00);
