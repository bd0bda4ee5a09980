-- A session: one agent, one purpose, a time limit. asked holds what the agent
-- asked for, resolved to connections; session_grant what a person granted.
create table session (
  id text not null primary key,
  environment_id text not null,
  organization_id text not null,
  agent_id text not null,
  agent_label text not null,
  agent_verified integer not null,
  user_id text not null,
  purpose text not null,
  asked blob not null,
  asked_digest text not null,
  needs_user integer not null,
  needs_approver integer not null,
  state text not null check (state in ('pending', 'active', 'ended')),
  reason text not null,
  minutes integer not null,
  requested_at integer not null,
  pending_until integer not null,
  approved_at integer not null,
  expires_at integer not null,
  ended_at integer not null,
  instructions text not null,
  deny_reason text not null,
  approval_id text not null,
  version integer not null
) strict;
create index session_by_agent on session (agent_id, requested_at);
create index session_by_organization on session (organization_id, requested_at, id);
create index session_by_user on session (user_id, organization_id, requested_at);
create index session_live on session (state, expires_at);

-- Handles name a session to its agent. A repeated request adds one.
create table session_handle (
  hash text not null primary key,
  session_id text not null references session (id)
) strict;

create table session_grant (
  session_id text not null references session (id),
  connection_id text not null,
  provider text not null,
  effects text not null,
  confirm text not null,
  tools blob not null,
  primary key (session_id, connection_id)
) strict;
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
  subject blob not null,
  state text not null check (state in ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'used')),
  created_at integer not null,
  expires_at integer not null,
  decided_at integer not null,
  decided_by text not null,
  note text not null,
  version integer not null
) strict;
create index approval_inbox on approval (organization_id, state, created_at);
create index approval_by_session on approval (session_id, subject_digest);
