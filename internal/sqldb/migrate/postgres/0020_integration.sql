-- oldest: 0020
-- An older server would go on to vend where an organization has said no.
alter table organization add column no_vending bigint not null default 0;

-- A provider as the back end of a product offers it: to its users, or to its
-- organizations as a whole. scopes is empty where the provider's record chooses,
-- and else a list behind an equals sign.
create table integration (
  id text not null primary key,
  environment_id text not null,
  provider text not null,
  ownership text not null,
  description text not null,
  enabled bigint not null,
  scopes text not null,
  clients text not null,
  scopes_required bigint not null,
  created_at bigint not null,
  updated_at bigint not null,
  version bigint not null
);
create unique index integration_by_provider on integration (environment_id, provider, ownership);

-- What one organization changes of it for itself.
create table integration_setting (
  environment_id text not null,
  organization_id text not null,
  provider text not null,
  enabled bigint not null,
  scopes text not null,
  updated_at bigint not null,
  version bigint not null,
  primary key (organization_id, provider)
);

-- Connections that were made beside the first one of their owner on purpose, and
-- that a look-up which knows of one only does not find.
create table integration_added (
  connection_id text not null primary key,
  environment_id text not null
);
