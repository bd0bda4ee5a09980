-- oldest: 0032
-- An older server takes a sign-in on an application's word for a whole one.
-- Which key made a user; empty: a person, the console, or a server that did not
-- note it yet.
alter table person add column made_by text not null default '';
-- The one organization that a sign-in on an application's word counts in.
alter table login add column organization_id text not null default '';

-- Links on which a user of an application's making signs in once, on its word.
-- next is the page of ours that it leads to.
create table vouch_link (
  token_hash blob not null primary key,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  key_id text not null,
  next text not null,
  created_at integer not null,
  expires_at integer not null
) strict;
create index vouch_link_by_user on vouch_link (user_id, expires_at);

-- Connect tokens: one user may connect one account, at one of some providers. What
-- became of it is read with the token; the page goes by the id.
create table connect_ticket (
  id text not null primary key,
  token_hash blob not null unique,
  environment_id text not null,
  organization_id text not null,
  user_id text not null,
  key_id text not null,
  providers text not null,
  state text not null,
  code text not null,
  provider text not null,
  connection_id text not null,
  begun_until integer not null,
  created_at integer not null,
  expires_at integer not null
) strict;
create index connect_ticket_by_expiry on connect_ticket (expires_at);

-- The connect token that an authorization was begun with.
alter table oauth_flow add column ticket_id text not null default '';
