-- The database of a store's tills. Times are text as the receipt prints them, flags are J or
-- N or nothing, money is in cents, and an article's number is as the scanner gave it: with
-- 13 digits or 14, sometimes with blanks. A receipt that is voided keeps its lines.

CREATE TABLE receipt (
    receipt_no  int         PRIMARY KEY,             -- from 1, in each store
    till        smallint    NOT NULL,
    opened      varchar(16) NOT NULL,                -- 31.01.2026 17:05
    total_cents int         NOT NULL DEFAULT 0,
    voided      char(1)     DEFAULT 'N',
    cashier     varchar(20),
    card_no     varchar(19)
);

CREATE TABLE receipt_line (
    receipt_no  int          NOT NULL REFERENCES receipt ON DELETE CASCADE ON UPDATE CASCADE,
    line_no     smallint     NOT NULL,
    ean         varchar(16)  NOT NULL,
    qty         numeric(9,3) NOT NULL DEFAULT 1,     -- negative: goods that came back
    unit_cents  int          NOT NULL,
    voided      char(1)      DEFAULT 'N',            -- the till marks a voided receipt's lines, too
    PRIMARY KEY (receipt_no, line_no)
);

INSERT INTO receipt VALUES
    (1, 1, '31.01.2026 17:05', 1098, 'N', 'Ms Weber', '4111111111111111'),
    (2, 1, '31.01.2026 17:09',    0, 'J', 'Ms Weber', NULL);

INSERT INTO receipt_line VALUES
    (1, 1, '4006381333931',   2,     299, 'N'),
    (1, 2, '2212345000005 ',  0.412, 1213, NULL),    -- cheese, by weight
    (2, 1, '04006381333931', 10,     299, 'J');
