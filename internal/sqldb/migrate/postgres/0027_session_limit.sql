-- Limits of a session: of arguments, by grant (empty: none), and the number of
-- calls that may start (0: any). The counter is apart from the session's row, which
-- calls hold shared.
alter table session add column calls bigint not null default 0;
alter table session_grant add column limits bytea not null default '';
create table session_calls (
  session_id text not null primary key references session (id),
  used bigint not null
);
