-- oldest: 0020
-- An older server would go on to vend where an organization has said no.
alter table organization add column no_vending integer not null default 0;

-- A provider as the back end of a product offers it: to its users, or to its
-- organizations as a whole. scopes is empty where the provider's record chooses,
-- and else a list behind an equals sign.
create table integration (
  id text not null primary key,
  environment_id text not null,
  provider text not null,
  ownership text not null,
  description text not null,
  enabled integer not null,
  scopes text not null,
  clients text not null,
  scopes_required integer not null,
  created_at integer not null,
  updated_at integer not null,
  version integer not null
) strict;
create unique index integration_by_provider on integration (environment_id, provider, ownership);

-- What one organization changes of it for itself.
create table integration_setting (
  environment_id text not null,
  organization_id text not null,
  provider text not null,
  enabled integer not null,
  scopes text not null,
  updated_at integer not null,
  version integer not null,
  primary key (organization_id, provider)
) strict;

-- Connections that were made beside the first one of their owner on purpose, and
-- that a look-up which knows of one only does not find.
create table integration_added (
  connection_id text not null primary key,
  environment_id text not null
) strict;
