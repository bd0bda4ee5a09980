-- A provider that an environment added. Removed rows stay, so that the names of
-- their tools are not taken again.
create table provider (
  environment_id text not null,
  slug text not null,
  record blob not null,
  client_id text not null,
  client_secret blob,
  client_secret_version integer not null,
  created_at integer not null,
  updated_at integer not null,
  deleted_at integer not null,
  version integer not null,
  primary key (environment_id, slug)
) strict;

-- The text of a record as connections were made with it, by its SHA-256.
create table provider_snapshot (
  environment_id text not null,
  digest blob not null,
  record blob not null,
  created_at integer not null,
  primary key (environment_id, digest)
) strict;

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
  pinned blob not null,
  record_digest blob not null,
  scopes text not null,
  credential_version integer not null,
  created_at integer not null,
  updated_at integer not null,
  ended_at integer not null,
  version integer not null
) strict;
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
  version integer not null,
  envelope blob,
  expires_at integer not null,
  refreshable integer not null,
  scopes text not null,
  obtained_at integer not null,
  lease_owner text not null,
  lease_until integer not null,
  attempt_started_at integer not null,
  failures integer not null,
  next_attempt_at integer not null,
  last_error text not null,
  revoke_state text not null,
  revoke_attempts integer not null,
  revoke_next_at integer not null
) strict;
create index credential_by_revoke on credential (revoke_state, revoke_next_at);
create index credential_by_expiry on credential (refreshable, expires_at);

-- One authorization at a provider, from the click to the callback.
create table oauth_flow (
  id text not null primary key,
  state_hash blob not null unique,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  started_by text not null,
  login_id text not null,
  provider text not null,
  envelope blob not null,
  redirect_uri text not null,
  expected_issuer text not null,
  record_digest blob not null,
  scopes text not null,
  connection_id text not null,
  return_to text not null,
  expires_at integer not null,
  created_at integer not null
) strict;
create index oauth_flow_by_expiry on oauth_flow (expires_at);
