-- oldest: 0015
-- An older server does not know what a deleted secret is, nor that a key is for some secrets only.
-- What people note about a named secret, its dates, and its deletion: a deleted
-- one keeps its name in deleted_name until it is purged. *_told is how far the
-- reminders are.
alter table secret_object add column description text not null default '';
alter table secret_object add column text_folded text not null default '';
alter table secret_object add column tags bytea not null default '[]';
alter table secret_object add column metadata bytea not null default '{}';
alter table secret_object add column write_only bigint not null default 0;
alter table secret_object add column expires_at bigint not null default 0;
alter table secret_object add column expiry_told bigint not null default 0;
alter table secret_object add column rotate_by bigint not null default 0;
alter table secret_object add column rotation_told bigint not null default 0;
alter table secret_object add column deleted_at bigint not null default 0;
alter table secret_object add column purge_at bigint not null default 0;
alter table secret_object add column deleted_name text not null default '';
create index secret_object_by_expiry on secret_object (expires_at) where expires_at <> 0 and expiry_told < 2;
create index secret_object_by_rotation on secret_object (rotate_by) where rotate_by <> 0 and rotation_told < 2;
create index secret_object_by_purge on secret_object (purge_at) where purge_at <> 0;

alter table secret_version add column content text not null default 'text';
alter table secret_version add column by_kind text not null default '';
alter table secret_version add column by_id text not null default '';
alter table secret_version add column by_name text not null default '';

-- What a secret is found by: "t:" and a tag, or "c:" with an item of its key
-- context, whose name has its length in front.
create table secret_label (
  object_id text not null references secret_object (id) on delete cascade,
  label text not null,
  environment_id text not null,
  primary key (object_id, label)
);
create index secret_label_by_label on secret_label (environment_id, label, object_id);
insert into secret_label (object_id, label, environment_id)
select o.id, 'c:' || length(i.key) || ':' || i.key || i.value, o.environment_id
from secret_object o, jsonb_each_text(convert_from(o.key_context, 'UTF8')::jsonb) i where convert_from(o.key_context, 'UTF8') <> 'null';

-- Which secrets a key's scopes are for; [] is all that it could see.
alter table api_key add column secret_rules bytea not null default '[]';
