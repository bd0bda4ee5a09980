-- A provider that an environment added. Removed rows stay, so that the names of
-- their tools are not taken again.
create table provider (
  environment_id text not null,
  slug text not null,
  record bytea not null,
  client_id text not null,
  client_secret bytea,
  client_secret_version bigint not null,
  created_at bigint not null,
  updated_at bigint not null,
  deleted_at bigint not null,
  version bigint not null,
  primary key (environment_id, slug)
);

-- The text of a record as connections were made with it, by its SHA-256.
create table provider_snapshot (
  environment_id text not null,
  digest bytea not null,
  record bytea not null,
  created_at bigint not null,
  primary key (environment_id, digest)
);

create table connection (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  provider text not null,
  state text not null,
  reason text not null,
  account_id text not null,
  account_label text not null,
  auth_method text not null,
  pinned bytea not null,
  record_digest bytea not null,
  scopes text not null,
  credential_version bigint not null,
  created_at bigint not null,
  updated_at bigint not null,
  ended_at bigint not null,
  version bigint not null
);
create unique index connection_account on connection (environment_id, organization_id, user_id, provider, account_id)
  where state <> 'disconnected' and account_id <> '';
create index connection_by_owner on connection (environment_id, organization_id, user_id, provider);
create index connection_by_environment on connection (environment_id, id);

-- What a connection holds, sealed. envelope is null once it is destroyed.
create table credential (
  connection_id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  provider text not null,
  kind text not null,
  version bigint not null,
  envelope bytea,
  expires_at bigint not null,
  refreshable bigint not null,
  scopes text not null,
  obtained_at bigint not null,
  lease_owner text not null,
  lease_until bigint not null,
  attempt_started_at bigint not null,
  failures bigint not null,
  next_attempt_at bigint not null,
  last_error text not null,
  revoke_state text not null,
  revoke_attempts bigint not null,
  revoke_next_at bigint not null
);
create index credential_by_revoke on credential (revoke_state, revoke_next_at);
create index credential_by_expiry on credential (refreshable, expires_at);

-- One authorization at a provider, from the click to the callback.
create table oauth_flow (
  id text not null primary key,
  state_hash bytea not null unique,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  started_by text not null,
  login_id text not null,
  provider text not null,
  envelope bytea not null,
  redirect_uri text not null,
  expected_issuer text not null,
  record_digest bytea not null,
  scopes text not null,
  connection_id text not null,
  return_to text not null,
  expires_at bigint not null,
  created_at bigint not null
);
create index oauth_flow_by_expiry on oauth_flow (expires_at);
