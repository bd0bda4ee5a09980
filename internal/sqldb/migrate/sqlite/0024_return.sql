-- Where a product wants its user back after connecting an account. The address in
-- the browser is a page of ours, which knows this one by the hash of its token.
create table integration_return (
  token_hash blob not null primary key,
  environment_id text not null,
  user_id text not null,
  url text not null,
  expires_at integer not null
) strict;
create index integration_return_by_expiry on integration_return (expires_at);
