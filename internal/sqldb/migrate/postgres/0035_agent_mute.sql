-- Until when nobody is asked for anything by this agent; 0: it may ask.
alter table agent add column muted_until bigint not null default 0;
