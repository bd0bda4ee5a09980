-- A client of our authorization server: registered by itself (no environment,
-- expires while unused) or an agent's own credentials made by an admin.
create table oauth_client (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  redirect_uris text not null,
  grants text not null,
  auth_method text not null,
  application_type text not null,
  secret_hash blob,
  address text not null,
  created_at integer not null,
  expires_at integer not null,
  version integer not null
) strict;
create index oauth_client_by_expiry on oauth_client (expires_at, id);

create table agent (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  verified integer not null,
  kind text not null,
  owner_id text not null,
  client_id text not null references oauth_client (id),
  client_host text not null,
  ceiling text not null,
  disabled_at integer not null,
  last_seen_at integer not null,
  created_at integer not null,
  version integer not null,
  unique (client_id, organization_id, owner_id)
) strict;
create index agent_by_organization on agent (environment_id, organization_id, id);
create index agent_by_owner on agent (owner_id, organization_id, id);

-- An authorization request that waits for a person's consent.
create table authorize_request (
  id text not null primary key,
  client_id text not null references oauth_client (id) on delete cascade,
  redirect_uri text not null,
  state text not null,
  challenge text not null,
  resource text not null,
  scope text not null,
  created_at integer not null,
  expires_at integer not null,
  decided_at integer not null
) strict;
create index authorize_request_by_expiry on authorize_request (expires_at, id);

create table authorization_code (
  hash blob not null primary key,
  family_id text not null unique,
  flow_id text not null,
  agent_id text not null references agent (id) on delete cascade,
  client_id text not null,
  redirect_uri text not null,
  challenge text not null,
  audience text not null,
  scope text not null,
  created_at integer not null,
  expires_at integer not null,
  used_at integer not null
) strict;
create index authorization_code_by_expiry on authorization_code (expires_at);

-- What one issuance started: its row is locked by every later issuance, so
-- that revoking it leaves nothing behind.
create table token_family (
  id text not null primary key,
  agent_id text not null references agent (id) on delete cascade,
  client_id text not null,
  user_id text not null,
  environment_id text not null,
  organization_id text not null,
  audience text not null,
  scope text not null,
  session_id text,
  created_at integer not null,
  expires_at integer not null,
  revoked_at integer not null,
  version integer not null
) strict;
create index token_family_by_agent on token_family (agent_id, id);
create index token_family_by_user on token_family (user_id, organization_id);
create index token_family_by_expiry on token_family (expires_at, id);
create index token_family_by_session on token_family (session_id);

create table agent_token (
  hash blob not null primary key,
  family_id text not null references token_family (id) on delete cascade,
  kind text not null,
  created_at integer not null,
  expires_at integer not null,
  revoked_at integer not null,
  replaced_at integer not null,
  replaced_by blob,
  sealed_access blob,
  sealed_refresh blob,
  successor_expires_at integer not null
) strict;
create index agent_token_by_family on agent_token (family_id);
create index agent_token_by_expiry on agent_token (expires_at);
create index agent_token_by_replacement on agent_token (replaced_at);
