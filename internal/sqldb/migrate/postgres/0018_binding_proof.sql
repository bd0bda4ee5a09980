-- oldest: 0018
-- Which root key wraps what must be the word of a server and not of whoever can
-- write these rows: a server proves each with a key that only it can open.
alter table root_brought add column proof bytea not null default '';
alter table key_binding add column proof bytea not null default '';
