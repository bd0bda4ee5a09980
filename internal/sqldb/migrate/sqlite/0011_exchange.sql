-- Codes that are being exchanged at a provider: a row that stays is one of which
-- nobody knows what became.
create table oauth_exchange (
  flow_id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  provider text not null,
  connection_id text not null,
  began_at integer not null
) strict;
