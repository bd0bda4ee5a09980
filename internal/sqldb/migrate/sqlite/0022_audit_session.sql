-- What no session did, such as the reading of a secret, is not looked for by session.
drop index audit_entry_by_session;
create index audit_entry_by_session on audit_entry (session_id, time) where session_id <> '';
