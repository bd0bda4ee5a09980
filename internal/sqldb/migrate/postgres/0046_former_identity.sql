-- Who was somebody at an organization's identity provider and is not any more: their
-- sign-in there lets them in only by the word of somebody of the organization.
create table former_identity (
  organization_id text not null,
  issuer text not null,
  subject text not null,
  user_id text not null,
  ended_at bigint not null,
  primary key (organization_id, issuer, subject)
);
