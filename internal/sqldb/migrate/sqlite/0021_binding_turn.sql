-- A binding that was ended or replaced must not count when somebody puts its row
-- back: its turn is how many changes of its scope's root key are on record.
alter table key_binding add column turn integer not null default 0;
alter table key_binding add column turn_proof blob not null default x'';
create index audit_entry_by_root_key on audit_entry (environment_id, organization_id, user_id) where action in ('root_key.bound', 'root_key.unbound');
