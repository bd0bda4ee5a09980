-- A run is the life of one process on this database. While it lives it renews
-- lives_until, by the database's clock; 0 says that it left. One that is over is
-- closed, and then the calls that it left open are settled.
create table audit_run (
  id text not null primary key,
  node text not null,
  handle text not null,
  started_at integer not null,
  lives_until integer not null,
  closed_at integer not null,
  closed_by text not null,
  settled_at integer not null
) strict;
create index audit_run_unsettled on audit_run (started_at) where settled_at = 0;

alter table audit_chain add column run_id text not null default '';
create index audit_chain_by_run on audit_chain (run_id);

-- A call has one outcome.
drop index audit_entry_by_ref;
create unique index audit_entry_by_ref on audit_entry (ref) where ref <> '';
