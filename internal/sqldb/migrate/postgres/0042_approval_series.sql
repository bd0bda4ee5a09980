-- How many more calls an approval allows that are like the one it was for. alike is a
-- digest of what must be the same, differ the names of the arguments that need not.
create table approval_series (
  approval_id text not null primary key references approval (id) on delete cascade,
  session_id text not null,
  connection_id text not null,
  tool text not null,
  alike text not null,
  differ text not null,
  most bigint not null,
  used bigint not null
);
create index approval_series_by_session on approval_series (session_id, connection_id, tool);
