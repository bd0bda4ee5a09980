-- When a handle was made, so that of a session's handles the oldest can go; 0 for
-- those from before.
alter table session_handle add column made_at integer not null default 0;
create index session_handle_by_session on session_handle (session_id, made_at);
