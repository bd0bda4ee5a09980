-- What the MCP server of a connection listed when it was last looked at: which
-- tools, by the digests of their definitions, and those themselves.
create table mcp_look (
  connection_id text not null primary key,
  environment_id text not null,
  provider text not null,
  looked_at integer not null,
  pins text not null,
  tools blob not null,
  revision text not null
) strict;
