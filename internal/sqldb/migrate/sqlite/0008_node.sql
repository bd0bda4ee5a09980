-- The processes that serve this database now. A row that is not renewed belongs
-- to one that died.
create table node (
  id text not null primary key,
  name text not null,
  binary_version text not null,
  schema_step integer not null,
  settings text not null,
  started_at integer not null,
  seen_at integer not null
) strict;

-- The steps beside which older binaries cannot run, and the last step that a
-- binary must know to do so.
create table schema_floor (
  version integer not null primary key,
  oldest integer not null
) strict;
