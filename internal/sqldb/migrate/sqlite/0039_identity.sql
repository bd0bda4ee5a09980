-- oldest: 0039
-- An older server would take a sign-in that counts in one organization for one that
-- counts everywhere.
-- Identity providers at which the members of one organization sign in, and who is
-- who there. A person is known by provider, issuer and subject, and never by an
-- e-mail address.
create table identity_provider (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  name text not null,
  issuer text not null,
  client_id text not null,
  envelope blob not null,
  sealed_version integer not null,
  admits integer not null,
  created_at integer not null,
  version integer not null
) strict;
create index identity_provider_by_organization on identity_provider (organization_id, id);

create table person_identity (
  provider_id text not null,
  issuer text not null,
  subject text not null,
  user_id text not null references person (id),
  organization_id text not null,
  created_at integer not null,
  used_at integer not null,
  primary key (provider_id, issuer, subject)
) strict;
create index person_identity_by_user on person_identity (user_id);

-- A code that a fresh sign-in at an identity provider gave one login.
create table fresh_code (
  login_id text not null primary key,
  code_hash blob not null,
  provider_id text not null,
  issuer text not null,
  subject text not null,
  proved_at integer not null,
  expires_at integer not null
) strict;

-- Through which provider somebody signed in, and in which organization alone that
-- counts; for a command line, of the browser that let it in.
alter table login add column provider_id text not null default '';
alter table cli_request add column provider_id text not null default '';
alter table cli_request add column organization_id text not null default '';
