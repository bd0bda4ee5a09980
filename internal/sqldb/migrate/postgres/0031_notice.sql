-- Notices of providers. The secret with which one signs them is sealed; of each notice
-- that was told, its digest is kept, so that the same one does nothing twice.
create table provider_hook (
  environment_id text not null,
  slug text not null,
  envelope bytea not null,
  created_at bigint not null,
  version bigint not null,
  primary key (environment_id, slug)
);
create table provider_notice (
  environment_id text not null,
  provider text not null,
  digest bytea not null,
  received_at bigint not null,
  primary key (environment_id, provider, digest)
);
create index provider_notice_by_time on provider_notice (received_at);
create index connection_by_account on connection (environment_id, provider, account_id);
