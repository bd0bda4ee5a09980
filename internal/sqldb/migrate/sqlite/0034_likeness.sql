-- What a session was asked for, without the words: requests that are alike in this
-- are one request, where denials hold back the next.
alter table session add column likeness text not null default '';
