-- oldest: 0016
-- The versions of a key. Each has a seed of its own; the one that kek.version
-- names seals, and the others open what is not under that one yet. wraps is how
-- many values a version may have sealed, counted ahead; for those from before it is
-- more than any server had sealed. emptied_at is when
-- nothing was found under a version that another one has followed. One that is kept
-- has wrapped data keys that applications hold, and is never destroyed for that.
create table kek_version (
  kek_id text not null references kek (id),
  version bigint not null,
  root_ref text not null,
  wrapped_seed bytea not null,
  commitment bytea not null,
  wraps bigint not null,
  created_at bigint not null,
  emptied_at bigint not null default 0,
  kept bigint not null default 0,
  primary key (kek_id, version)
);
create index kek_version_by_root on kek_version (root_ref, kek_id, version);
create index kek_version_by_age on kek_version (created_at);
create index kek_version_by_emptied on kek_version (emptied_at);
insert into kek_version (kek_id, version, root_ref, wrapped_seed, commitment, wraps, created_at)
select id, version, root_ref, wrapped_seed, commitment, 16777216, created_at from kek;
alter table kek drop column root_ref;
alter table kek drop column wrapped_seed;
alter table kek drop column commitment;

-- Two items of the context, to find keys by; null where nobody has read them from
-- it yet. Values of versions before reseal are encrypted anew and not only wrapped
-- anew. A key that was shredded has no versions and stays, so that its context
-- never gets another.
alter table kek add column organization_id text;
alter table kek add column user_id text;
alter table kek add column reseal bigint not null default 0;
alter table kek add column shredded_at bigint not null default 0;
create index kek_by_whose on kek (environment_id, organization_id, user_id);

-- Which of the server's own root keys new keys are wrapped by.
create table root_primary (
  id text not null primary key,
  ref text not null,
  changed_at bigint not null
);

-- Root keys that customers brought, as long as anything is wrapped by them.
create table root_brought (
  ref text not null primary key,
  uri text not null,
  created_at bigint not null
);

-- Whose keys a customer's root key wraps. Empty fields match all; the most exact
-- binding counts.
create table key_binding (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  mode text not null check (mode in ('required', 'preferred')),
  root_ref text not null references root_brought (ref),
  created_by_kind text not null,
  created_by_id text not null,
  created_at bigint not null,
  updated_at bigint not null,
  version bigint not null,
  unique (environment_id, organization_id, user_id)
);

-- What was sealed under a version of a key is found by what its envelope holds
-- from the second byte on.
create index totp_by_seal on totp (substr(envelope, 2, 20));
create index totp_setup_by_seal on totp_setup (substr(envelope, 2, 20));
create index agent_token_by_access_seal on agent_token (substr(sealed_access, 2, 20)) where sealed_access is not null;
create index agent_token_by_refresh_seal on agent_token (substr(sealed_refresh, 2, 20)) where sealed_refresh is not null;
create index provider_by_seal on provider (substr(client_secret, 2, 20)) where client_secret is not null;
create index provider_draft_by_seal on provider_draft (substr(client_secret, 2, 20)) where client_secret is not null;
create index credential_by_seal on credential (substr(envelope, 2, 20)) where envelope is not null;
create index oauth_flow_by_seal on oauth_flow (substr(envelope, 2, 20));
create index approval_by_seal on approval (substr(subject, 2, 20));
create index secret_version_by_seal on secret_version (substr(envelope, 2, 20));
create index secret_request_by_seal on secret_request (substr(digest_sealed, 2, 20));
