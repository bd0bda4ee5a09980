// The TypeScript MCP client as a foreign agent: connects with a bearer token,
// lists the tools and calls one. Prints one JSON line.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { url, token, tool, args } = JSON.parse(process.argv[2]);
const client = new Client({ name: "foreign-agent", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } }));
const { tools } = await client.listTools();
const result = tool ? await client.callTool({ name: tool, arguments: args ?? {} }) : null;
process.stdout.write(JSON.stringify({
  server: client.getServerVersion(), protocol: client.getNegotiatedProtocolVersion?.(), tools: tools.map((t) => t.name), result,
}) + "\n");
await client.close();
