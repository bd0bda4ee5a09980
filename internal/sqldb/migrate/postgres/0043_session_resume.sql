-- Calls that a client is to make again once a person was asked. A row is taken by
-- whoever comes back with it, once; what is out of date goes with the next insert.
create table session_resume (
  hash text not null primary key,
  environment_id text not null,
  organization_id text not null,
  agent_id text not null,
  user_id text not null,
  session_id text not null references session (id) on delete cascade,
  approval_id text not null,
  subject text not null,
  until bigint not null
);
create index session_resume_by_approval on session_resume (approval_id);
create index session_resume_until on session_resume (until);
