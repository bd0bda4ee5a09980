-- The certificate authority of an environment's forward proxy. The key is sealed.
create table proxy_authority (
  id text not null primary key,
  environment_id text not null,
  certificate blob not null,
  sealed_key blob not null,
  created_at integer not null,
  expires_at integer not null
) strict;
create index proxy_authority_by_environment on proxy_authority (environment_id, expires_at);
