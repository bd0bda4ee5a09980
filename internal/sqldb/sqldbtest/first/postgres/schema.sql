create table schema_version (version bigint primary key, name text not null, checksum text not null, applied_at bigint not null);

-- Leases: who may do a task alone, on all nodes, until when.
create table lease (
	name  text primary key,
	owner text not null,
	until bigint not null
);

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

-- A key-encrypting key: its seed, wrapped by a root key for one key context.
create table kek (
  id text not null primary key,
  environment_id text not null,
  context_hash text not null unique,
  context bytea not null,
  version bigint not null,
  root_ref text not null,
  wrapped_seed bytea not null,
  commitment bytea not null,
  created_at bigint not null
);

-- A named secret. Its values are its versions. name_folded serves the search.
create table secret_object (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  name_folded text not null,
  key_context bytea not null,
  kek_id text not null references kek (id),
  current_version bigint not null,
  updated_at bigint not null,
  updated_by_kind text not null,
  updated_by_id text not null,
  updated_by_name text not null,
  created_at bigint not null,
  unique (environment_id, name)
);
create index secret_object_by_update on secret_object (environment_id, updated_at, id);

create table secret_version (
  object_id text not null references secret_object (id) on delete cascade,
  version bigint not null,
  version_id text not null unique,
  envelope bytea not null,
  size bigint not null,
  etag text not null,
  created_at bigint not null,
  primary key (object_id, version)
);

-- What a create request with an idempotency key was answered. The digest of
-- the request is sealed: it covers a value that could be guessed from it.
create table secret_request (
  caller_id text not null,
  key_hash bytea not null,
  digest_sealed bytea not null,
  answer bytea not null,
  created_at bigint not null,
  primary key (caller_id, key_hash)
);
create index secret_request_by_age on secret_request (created_at);

-- A hard namespace. Its operator is the organization whose owners and admins
-- run the environment as a whole.
create table environment (
  id text not null primary key,
  name text not null unique,
  operator_id text not null,
  created_at bigint not null,
  version bigint not null
);

create table organization (
  id text not null primary key,
  environment_id text not null references environment (id),
  name text not null,
  external_id text not null,
  require_passkey bigint not null,
  created_at bigint not null,
  version bigint not null
);
create index organization_by_environment on organization (environment_id, id);
create unique index organization_by_external_id on organization (environment_id, external_id) where external_id <> '';

-- A user. The e-mail is in its one canonical form, or empty.
create table person (
  id text not null primary key,
  environment_id text not null references environment (id),
  email text not null,
  name text not null,
  external_id text not null,
  disabled_at bigint not null,
  created_at bigint not null,
  version bigint not null
);
create index person_by_environment on person (environment_id, id);
create unique index person_by_email on person (environment_id, email) where email <> '';
create unique index person_by_external_id on person (environment_id, external_id) where external_id <> '';

create table membership (
  organization_id text not null references organization (id),
  user_id text not null references person (id),
  role text not null,
  created_at bigint not null,
  version bigint not null,
  primary key (organization_id, user_id)
);
create index membership_by_user on membership (user_id, organization_id);

create table passkey (
  id text not null primary key,
  user_id text not null references person (id),
  credential_id bytea not null unique,
  public_key bytea not null,
  sign_count bigint not null,
  backup_eligible bigint not null,
  backup_state bigint not null,
  transports text not null,
  label text not null,
  created_at bigint not null,
  last_used_at bigint not null,
  version bigint not null
);
create index passkey_by_user on passkey (user_id, id);

-- A registered authenticator app. The step is the newest one used.
create table totp (
  user_id text not null primary key references person (id),
  email text not null,
  envelope bytea not null,
  sealed_version bigint not null,
  last_step bigint not null,
  created_at bigint not null,
  version bigint not null
);
create unique index totp_by_email on totp (email) where email <> '';

-- An authenticator app that has not shown a code yet. The subject is the login
-- or the link that began it.
create table totp_setup (
  subject text not null primary key,
  user_id text not null references person (id),
  envelope bytea not null,
  sealed_version bigint not null,
  expires_at bigint not null
);

-- Guesses at a code in one window of time, by what is guessed at.
create table guess (
  subject bytea not null primary key,
  since bigint not null,
  failures bigint not null
);
create index guess_by_since on guess (since);

-- A WebAuthn ceremony that has begun. The subject is the flow, or the link of
-- an enrolment.
create table signin_flow (
  subject text not null primary key,
  kind text not null,
  user_id text not null,
  login_id text not null,
  state bytea not null,
  expires_at bigint not null
);
create index signin_flow_by_expiry on signin_flow (expires_at);

create table enroll_link (
  id text not null primary key,
  user_id text not null references person (id),
  token_hash bytea not null unique,
  created_at bigint not null,
  expires_at bigint not null
);
create index enroll_link_by_user on enroll_link (user_id);

create table login (
  id text not null primary key,
  user_id text not null references person (id),
  token_hash bytea not null unique,
  method text not null,
  first bigint not null,
  passkey_id text not null,
  address text not null,
  authenticated_at bigint not null,
  last_seen_at bigint not null,
  expires_at bigint not null,
  revoked_at bigint not null,
  version bigint not null
);
create index login_by_user on login (user_id, id);

-- A command line that waits for a person to confirm its code.
create table cli_request (
  id text not null primary key,
  code text not null unique,
  poll_hash bytea not null unique,
  address text not null,
  user_id text not null,
  created_at bigint not null,
  expires_at bigint not null,
  version bigint not null
);
create index cli_request_by_expiry on cli_request (expires_at);

-- What an owner must be told and can dismiss.
create table owner_notice (
  event_id text not null,
  owner_id text not null references person (id),
  kind text not null,
  user_id text not null references person (id),
  created_at bigint not null,
  dismissed_at bigint not null,
  primary key (owner_id, event_id)
);

-- The request digest is what a person proved presence for: one proof, one key.
create table api_key (
  id text not null primary key,
  environment_id text not null references environment (id),
  organization_id text not null,
  name text not null,
  token_hash bytea not null unique,
  request_digest bytea unique,
  scopes text not null,
  created_by_kind text not null,
  created_by_id text not null,
  created_at bigint not null,
  expires_at bigint not null,
  last_used_at bigint not null,
  revoked_at bigint not null,
  version bigint not null
);
create index api_key_by_environment on api_key (environment_id, id);

-- Proofs of presence that have acted, by the digest that they were over.
create table spent_proof (
  digest bytea not null primary key,
  spent_at bigint not null
);
create index spent_proof_by_time on spent_proof (spent_at);

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
  secret_hash bytea,
  address text not null,
  created_at bigint not null,
  expires_at bigint not null,
  version bigint not null
);
create index oauth_client_by_expiry on oauth_client (expires_at, id);

create table agent (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  verified boolean not null,
  kind text not null,
  owner_id text not null,
  client_id text not null references oauth_client (id),
  client_host text not null,
  ceiling text not null,
  disabled_at bigint not null,
  last_seen_at bigint not null,
  created_at bigint not null,
  version bigint not null,
  unique (client_id, organization_id, owner_id)
);
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
  created_at bigint not null,
  expires_at bigint not null,
  decided_at bigint not null
);
create index authorize_request_by_expiry on authorize_request (expires_at, id);

create table authorization_code (
  hash bytea not null primary key,
  family_id text not null unique,
  flow_id text not null,
  agent_id text not null references agent (id) on delete cascade,
  client_id text not null,
  redirect_uri text not null,
  challenge text not null,
  audience text not null,
  scope text not null,
  created_at bigint not null,
  expires_at bigint not null,
  used_at bigint not null
);
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
  created_at bigint not null,
  expires_at bigint not null,
  revoked_at bigint not null,
  version bigint not null
);
create index token_family_by_agent on token_family (agent_id, id);
create index token_family_by_user on token_family (user_id, organization_id);
create index token_family_by_expiry on token_family (expires_at, id);
create index token_family_by_session on token_family (session_id);

create table agent_token (
  hash bytea not null primary key,
  family_id text not null references token_family (id) on delete cascade,
  kind text not null,
  created_at bigint not null,
  expires_at bigint not null,
  revoked_at bigint not null,
  replaced_at bigint not null,
  replaced_by bytea,
  sealed_access bytea,
  sealed_refresh bytea,
  successor_expires_at bigint not null
);
create index agent_token_by_family on agent_token (family_id);
create index agent_token_by_expiry on agent_token (expires_at);
create index agent_token_by_replacement on agent_token (replaced_at);

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

-- A session: one agent, one purpose, a time limit. asked holds what the agent
-- asked for, resolved to connections; session_grant what a person granted.
create table session (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  agent_id text not null,
  agent_label text not null,
  agent_verified boolean not null,
  user_id text not null,
  purpose text not null,
  asked bytea not null,
  asked_digest text not null,
  needs_user boolean not null,
  needs_approver boolean not null,
  state text not null check (state in ('pending', 'active', 'ended')),
  reason text not null,
  minutes bigint not null,
  requested_at bigint not null,
  pending_until bigint not null,
  approved_at bigint not null,
  expires_at bigint not null,
  ended_at bigint not null,
  instructions text not null,
  deny_reason text not null,
  approval_id text not null,
  version bigint not null
);
create index session_by_agent on session (agent_id, requested_at);
create index session_by_organization on session (organization_id, requested_at, id);
create index session_by_user on session (user_id, organization_id, requested_at);
create index session_live on session (state, expires_at);

-- Handles name a session to its agent. A repeated request adds one.
create table session_handle (
  hash text not null primary key,
  session_id text not null references session (id)
);

create table session_grant (
  session_id text not null references session (id),
  connection_id text not null,
  provider text not null,
  effects text not null,
  confirm text not null,
  tools bytea not null,
  primary key (session_id, connection_id)
);
create index session_grant_by_connection on session_grant (connection_id);

-- A person's decision on one exact thing: starting a session, or one call.
create table approval (
  id text not null primary key,
  kind text not null check (kind in ('session', 'call')),
  environment_id text not null,
  organization_id text not null,
  session_id text not null references session (id),
  agent_id text not null,
  user_id text not null,
  connection_id text not null,
  connection_owner text not null,
  tool text not null,
  subject_digest text not null,
  subject bytea not null,
  state text not null check (state in ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'used')),
  created_at bigint not null,
  expires_at bigint not null,
  decided_at bigint not null,
  decided_by text not null,
  note text not null,
  version bigint not null
);
create index approval_inbox on approval (organization_id, state, created_at);
create index approval_by_session on approval (session_id, subject_digest);
