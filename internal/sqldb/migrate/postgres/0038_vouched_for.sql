-- At which providers who is signed in on an application's word may connect, by their
-- ids; nothing for all.
alter table vouch_link add column providers text not null default '';
alter table login add column providers text not null default '';
