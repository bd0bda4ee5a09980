-- Handles are forgotten some days after their session.
create index session_handle_by_time on session_handle (made_at);
