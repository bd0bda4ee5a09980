-- oldest: 0019
-- An older server takes two accounts of one id at two tenants for one.
-- What a connection was asked for, where within its provider it is, and how long
-- it lasts. place tells apart accounts that have one id at two tenants.
alter table connection add column place text not null default '';
alter table connection add column asked text not null default '';
alter table connection add column reauthorize_by bigint not null default 0;
alter table connection add column noticed_at bigint not null default 0;
drop index connection_account;
create unique index connection_account on connection (environment_id, organization_id, user_id, provider, account_id, place)
  where state <> 'disconnected' and account_id <> '';
create index connection_by_reauthorize on connection (reauthorize_by) where state <> 'disconnected' and reauthorize_by > 0;
create index connection_by_provider on connection (environment_id, provider, created_at);

-- When a grant that would lapse unused is refreshed next, and when the provider is
-- asked next whether a credential still works.
alter table credential add column keep_at bigint not null default 0;
alter table credential add column check_at bigint not null default 0;
create index credential_by_keep on credential (keep_at) where keep_at > 0;
create index credential_by_check on credential (check_at) where check_at > 0;

-- What the person chose of the provider's addresses, as JSON.
alter table oauth_flow add column chosen text not null default '{}';
