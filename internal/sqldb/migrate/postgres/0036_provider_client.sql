-- oldest: 0036
-- An older server would sign people in, and renew what they connected, with the wrong client.
-- A client at a provider has two secrets while one replaces the other. client_for is
-- the organization that the environment's client is for: nothing for all, as it was
-- until now, or none.
alter table provider add column client_for text not null default '';
alter table provider add column old_client_secret bytea;
alter table provider add column old_client_secret_version bigint not null default 0;
alter table provider add column old_client_secret_until bigint not null default 0;

-- An organization's own client. places is a digest of those that its secret was
-- given for.
create table provider_client (
  environment_id text not null,
  slug text not null,
  organization_id text not null,
  client_id text not null,
  client_secret bytea,
  client_secret_version bigint not null,
  old_client_secret bytea,
  old_client_secret_version bigint not null,
  old_client_secret_until bigint not null,
  places text not null,
  updated_at bigint not null,
  version bigint not null,
  primary key (environment_id, slug, organization_id)
);

create index provider_by_old_seal on provider (substr(old_client_secret, 2, 20)) where old_client_secret is not null;
create index provider_client_by_seal on provider_client (substr(client_secret, 2, 20)) where client_secret is not null;
create index provider_client_by_old_seal on provider_client (substr(old_client_secret, 2, 20)) where old_client_secret is not null;

-- What a record that was handed in says of clients.
alter table provider_draft add column organization_id text not null default '';
alter table provider_draft add column client_for text not null default '';
alter table provider_draft add column accept_shared bigint not null default 0;
alter table provider_draft add column overlap bigint not null default -1;

-- The client that somebody is signed in with.
alter table oauth_flow add column client_of text not null default '';
alter table oauth_flow add column client_id text not null default '';
