-- A client may describe itself in a document, whose address is then its name, and
-- sign with keys of its own instead of a secret: keys are a JWK Set, keys_url is
-- where one lies. An old secret may count beside the new one for a time.
alter table oauth_client add column url text not null default '';
alter table oauth_client add column keys text not null default '';
alter table oauth_client add column keys_url text not null default '';
alter table oauth_client add column fresh_until bigint not null default 0;
alter table oauth_client add column old_secret_hash bytea;
alter table oauth_client add column old_secret_until bigint not null default 0;
create unique index oauth_client_by_url on oauth_client (url) where url <> '';

-- Signed assertions that were used, until they are too old to count.
create table client_assertion (
  hash bytea not null primary key,
  expires_at bigint not null
);
create index client_assertion_by_expiry on client_assertion (expires_at);
