-- A session: one agent, one purpose, a time limit. asked holds what the agent
-- asked for, resolved to connections; session_grant what a person granted.
create table session (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  agent_id text not null,
  agent_label text not null,
  agent_verified boolean not null,
  user_id text not null,
  purpose text not null,
  asked bytea not null,
  asked_digest text not null,
  needs_user boolean not null,
  needs_approver boolean not null,
  state text not null check (state in ('pending', 'active', 'ended')),
  reason text not null,
  minutes bigint not null,
  requested_at bigint not null,
  pending_until bigint not null,
  approved_at bigint not null,
  expires_at bigint not null,
  ended_at bigint not null,
  instructions text not null,
  deny_reason text not null,
  approval_id text not null,
  version bigint not null
);
create index session_by_agent on session (agent_id, requested_at);
create index session_by_organization on session (organization_id, requested_at, id);
create index session_by_user on session (user_id, organization_id, requested_at);
create index session_live on session (state, expires_at);

-- Handles name a session to its agent. A repeated request adds one.
create table session_handle (
  hash text not null primary key,
  session_id text not null references session (id)
);

create table session_grant (
  session_id text not null references session (id),
  connection_id text not null,
  provider text not null,
  effects text not null,
  confirm text not null,
  tools bytea not null,
  primary key (session_id, connection_id)
);
create index session_grant_by_connection on session_grant (connection_id);

-- A person's decision on one exact thing: starting a session, or one call.
create table approval (
  id text not null primary key,
  kind text not null check (kind in ('session', 'call')),
  environment_id text not null,
  organization_id text not null,
  session_id text not null references session (id),
  agent_id text not null,
  user_id text not null,
  connection_id text not null,
  connection_owner text not null,
  tool text not null,
  subject_digest text not null,
  subject bytea not null,
  state text not null check (state in ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'used')),
  created_at bigint not null,
  expires_at bigint not null,
  decided_at bigint not null,
  decided_by text not null,
  note text not null,
  version bigint not null
);
create index approval_inbox on approval (organization_id, state, created_at);
create index approval_by_session on approval (session_id, subject_digest);
