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
  secret blob not null,
  secret_version integer not null,
  old_secret blob,
  old_until integer not null,
  failures integer not null,
  failing_since integer not null,
  paused_until integer not null,
  created_at integer not null,
  updated_at integer not null,
  version integer not null
) strict;
create index webhook_by_environment on webhook (environment_id, id);

-- What is to be told to one, once for each event. It is written in the transaction
-- of what happened, and kept for a month.
create table webhook_delivery (
  id text not null primary key,
  webhook_id text not null,
  environment_id text not null,
  event_id text not null,
  kind text not null,
  body blob not null,
  state text not null,
  attempts integer not null,
  next_at integer not null,
  status integer not null,
  error text not null,
  created_at integer not null,
  updated_at integer not null
) strict;
create unique index webhook_delivery_once on webhook_delivery (webhook_id, event_id);
create index webhook_delivery_due on webhook_delivery (next_at) where state = 'pending';
create index webhook_delivery_by_webhook on webhook_delivery (webhook_id, id);
create index webhook_delivery_by_time on webhook_delivery (created_at);
