-- What organizations decide about sessions and approvals: settings and policies,
-- every version of each. The highest version counts.
create table organization_rule (
  organization_id text not null references organization (id),
  kind text not null check (kind in ('settings', 'policy')),
  version integer not null,
  document blob not null,
  made_at integer not null,
  made_by text not null,
  primary key (organization_id, kind, version)
) strict;
-- The first of two persons who decide: who it was, what they allowed, and the
-- digest that they proved. Empty: nobody has.
alter table approval add column first_by text not null default '';
alter table approval add column first_at integer not null default 0;
alter table approval add column first_digest text not null default '';
alter table approval add column first_decision blob not null default x'';
