-- Keys that sign-in ceremonies are begun with; see account/challenge.go.
create table challenge_key (
  id text not null primary key,
  key blob not null,
  made_at integer not null
) strict;
create index challenge_key_by_time on challenge_key (made_at);

-- Where an authorization request came from (an IPv6 address as its /64), and who
-- has opened it or a command line's request: what nobody has opened makes way
-- first.
alter table authorize_request add column address text not null default '';
alter table authorize_request add column opened_by text not null default '';
alter table cli_request add column opened_by text not null default '';
