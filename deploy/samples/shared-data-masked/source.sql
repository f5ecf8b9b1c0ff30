-- Personnel: the number of an employee is the key of everything, phone numbers are free text,
-- a memo field holds what nobody wants to see elsewhere, and the old values of a row go into
-- the log (REPLICA IDENTITY FULL), since another tool asked for it once.

CREATE SCHEMA staff;

CREATE TABLE staff.employee (
    emp_no     varchar(10) PRIMARY KEY,              -- as printed on the badge
    name       text        NOT NULL,
    mail       text,
    phone      varchar(30),
    iban       varchar(34),
    born       date,
    grade      varchar(10),                          -- pay grade
    department varchar(20) NOT NULL,
    memo       text
);
ALTER TABLE staff.employee REPLICA IDENTITY FULL;

CREATE TABLE staff.booking (
    emp_no varchar(10)  NOT NULL REFERENCES staff.employee ON UPDATE CASCADE ON DELETE CASCADE,
    day    date         NOT NULL,
    hours  numeric(4,2) NOT NULL,
    remark text,
    PRIMARY KEY (emp_no, day)
);

CREATE TABLE staff.warning (id serial PRIMARY KEY, emp_no varchar(10) NOT NULL, reason text NOT NULL);

INSERT INTO staff.employee VALUES
    ('EMP-70011', 'Wilhelmina Brandt', 'w.brandt@example.org', '+49 40 5550101', 'DE02120300000000202051', '1971-03-09', 'PAY-E13', 'warehouse', 'back trouble'),
    ('EMP-70012', 'Ósvaldur Pálsson', 'o.palsson@example.org', NULL, 'IS140159260076545510730339', '1988-11-30', 'PAY-E09', 'warehouse', NULL),
    ('EMP-70013', 'Xiomara Quintero', NULL, 'ask reception', 'ES9121000418450200051332', NULL, 'PAY-E15', 'accounts', 'wants part-time');

INSERT INTO staff.booking VALUES
    ('EMP-70011', '2026-02-02', 8.00, 'doctor at noon'), ('EMP-70011', '2026-02-03', 7.75, NULL),
    ('EMP-70012', '2026-02-02', 8.50, ''), ('EMP-70013', '2026-02-02', 6.00, 'childcare');

INSERT INTO staff.warning (emp_no, reason) VALUES ('EMP-70012', 'late three times');
