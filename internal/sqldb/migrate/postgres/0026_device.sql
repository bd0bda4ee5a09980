-- A device that waits for a person to type the code that it shows (RFC 8628). The
-- authorization request of the same flow says what for. The user code is in plain:
-- it names a question and answers nothing.
create table device_code (
  hash bytea not null primary key,
  flow_id text not null unique,
  client_id text not null,
  user_code text not null unique,
  poll_every bigint not null,
  poll_after bigint not null,
  expires_at bigint not null,
  agent_id text not null,
  denied_at bigint not null,
  family_id text not null,
  used_at bigint not null
);
create index device_code_by_expiry on device_code (expires_at);
