-- What a session rested on that ended, when that ended the session.
alter table session add column cause text not null default '';

-- The connections that a session was asked for, so that the end of one finds the
-- requests that wait for it.
create table session_asked (
  session_id text not null references session (id),
  connection_id text not null,
  provider text not null,
  primary key (session_id, connection_id)
);
create index session_asked_by_connection on session_asked (connection_id);
