-- What the CRM lacked.
INSERT INTO crm.country VALUES ('XK', 'Kosovo');
