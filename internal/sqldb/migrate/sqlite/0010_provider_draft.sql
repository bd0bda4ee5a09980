-- A provider record that a person has handed in and not agreed to yet. Its
-- client secret is sealed for them.
create table provider_draft (
  id text not null primary key,
  environment_id text not null,
  user_id text not null,
  slug text not null,
  record blob not null,
  client_id text not null,
  client_secret blob,
  if_version integer not null,
  created_at integer not null,
  expires_at integer not null
) strict;
create index provider_draft_by_user on provider_draft (user_id, id);
create index provider_draft_by_expiry on provider_draft (expires_at);
