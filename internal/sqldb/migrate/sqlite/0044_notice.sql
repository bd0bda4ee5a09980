-- How something is told: nothing for a signed event, slack or mail. What is user_id's is
-- told to that person alone, by mail, and only what waits for them.
alter table webhook add column form text not null default '';
alter table webhook add column user_id text not null default '';
create unique index webhook_of_user on webhook (environment_id, user_id) where user_id <> '';
