-- Requests to widen a session that runs. Such a request is a pending session; base is
-- the version of the session that it was shown to change.
create table session_widening (
  session_id text not null primary key references session (id) on delete cascade,
  widens text not null,
  base integer not null
) strict;
create index session_widening_by_session on session_widening (widens);

-- A session can come to have accounts that its request did not name.
alter table session_grant add column provider_name text not null default '';
