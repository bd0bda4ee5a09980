-- Where an application is told of what happens. events is empty for all of them.
-- Of a secret that was replaced, the old one signs as well until old_until.
create table webhook (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  url text not null,
  description text not null,
  events text not null,
  state text not null,
  reason text not null,
  secret bytea not null,
  secret_version bigint not null,
  old_secret bytea,
  old_until bigint not null,
  failures bigint not null,
  failing_since bigint not null,
  paused_until bigint not null,
  created_at bigint not null,
  updated_at bigint not null,
  version bigint not null
);
create index webhook_by_environment on webhook (environment_id, id);

-- What is to be told to one, once for each event. It is written in the transaction
-- of what happened, and kept for a month.
create table webhook_delivery (
  id text not null primary key,
  webhook_id text not null,
  environment_id text not null,
  event_id text not null,
  kind text not null,
  body bytea not null,
  state text not null,
  attempts bigint not null,
  next_at bigint not null,
  status bigint not null,
  error text not null,
  created_at bigint not null,
  updated_at bigint not null
);
create unique index webhook_delivery_once on webhook_delivery (webhook_id, event_id);
create index webhook_delivery_due on webhook_delivery (next_at) where state = 'pending';
create index webhook_delivery_by_webhook on webhook_delivery (webhook_id, id);
create index webhook_delivery_by_time on webhook_delivery (created_at);
