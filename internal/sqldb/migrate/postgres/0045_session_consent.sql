-- What a client asks for with its authorization request, for one session, as JSON; empty: an identity.
alter table authorize_request add column asks text not null default '';
-- The session that a code is for, until when, and what it gives, as JSON; empty: an identity.
alter table authorization_code add column session_id text not null default '';
alter table authorization_code add column session_expires_at bigint not null default 0;
alter table authorization_code add column details text not null default '';
create index authorization_code_by_session on authorization_code (session_id) where session_id <> '';

-- Sessions that were asked for with an authorization request, which their approval
-- answers: digest says to whom. local: a program on the machine of whoever has the page.
create table session_consent (
  session_id text not null primary key references session (id) on delete cascade,
  flow_id text not null unique,
  digest text not null,
  host text not null,
  local boolean not null
);
