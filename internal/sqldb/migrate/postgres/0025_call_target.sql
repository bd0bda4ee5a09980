-- What the provider says that a call is about, sealed; empty: nothing is known.
alter table approval add column target bytea not null default '';
