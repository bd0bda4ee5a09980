-- One chain of entries per process run. The key of a chain is wrapped by the
-- root key; each chain names the head of the one before it on its node.
create table audit_chain (
  id text not null primary key,
  node text not null,
  key_ref text not null,
  key_wrapped bytea not null,
  started_at bigint not null
);

-- The columns beside body repeat what body says, for look-ups; verification
-- compares them. Rows are only ever inserted.
create table audit_entry (
  chain_id text not null references audit_chain (id),
  seq bigint not null,
  id text not null unique,
  time bigint not null,
  kind text not null,
  ref text not null,
  environment_id text not null,
  organization_id text not null,
  agent_id text not null,
  user_id text not null,
  session_id text not null,
  connection_id text not null,
  action text not null,
  decision text not null,
  body bytea not null,
  hash bytea not null,
  primary key (chain_id, seq)
);
create index audit_entry_by_environment on audit_entry (environment_id, time, id);
create index audit_entry_by_session on audit_entry (session_id, time);
create index audit_entry_by_ref on audit_entry (ref) where ref <> '';

-- The key that signs checkpoints, wrapped by the root key.
create table audit_signer (
  id text not null primary key,
  key_ref text not null,
  key_wrapped bytea not null,
  verifier text not null
);
