-- A key-encrypting key: its seed, wrapped by a root key for one key context.
create table kek (
  id text not null primary key,
  environment_id text not null,
  context_hash text not null unique,
  context blob not null,
  version integer not null,
  root_ref text not null,
  wrapped_seed blob not null,
  commitment blob not null,
  created_at integer not null
) strict;

-- A named secret. Its values are its versions. name_folded serves the search.
create table secret_object (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  name_folded text not null,
  key_context blob not null,
  kek_id text not null references kek (id),
  current_version integer not null,
  updated_at integer not null,
  updated_by_kind text not null,
  updated_by_id text not null,
  updated_by_name text not null,
  created_at integer not null,
  unique (environment_id, name)
) strict;
create index secret_object_by_update on secret_object (environment_id, updated_at, id);

create table secret_version (
  object_id text not null references secret_object (id) on delete cascade,
  version integer not null,
  version_id text not null unique,
  envelope blob not null,
  size integer not null,
  etag text not null,
  created_at integer not null,
  primary key (object_id, version)
) strict;

-- What a create request with an idempotency key was answered. The digest of
-- the request is sealed: it covers a value that could be guessed from it.
create table secret_request (
  caller_id text not null,
  key_hash blob not null,
  digest_sealed blob not null,
  answer blob not null,
  created_at integer not null,
  primary key (caller_id, key_hash)
) strict;
create index secret_request_by_age on secret_request (created_at);
