-- Sessions whose approval said that the agent may hand them on to sub-agents, and
-- those that came of it: a child ends with its parent.
create table session_hand_on (
  session_id text not null primary key references session (id) on delete cascade
) strict;

create table session_child (
  session_id text not null primary key references session (id) on delete cascade,
  parent_id text not null
) strict;
create index session_child_by_parent on session_child (parent_id);
