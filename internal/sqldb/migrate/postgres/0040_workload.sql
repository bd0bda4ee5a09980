-- Whose tokens prove an agent that holds no secret: a platform's issuer, subject and claims, as JSON.
alter table oauth_client add column workload text not null default '';
