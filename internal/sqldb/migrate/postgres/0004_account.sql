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
