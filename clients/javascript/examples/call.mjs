// Calls a peer: node call.mjs IDENTITY PEER PROTOCOL [REQUEST]
//
// The request and the reply are JSON. An error is printed to standard error as JSON; the exit code is then 1.

import { Client } from "fastn-p2p-client";

const [identity, peer, protocol, request = "null"] = process.argv.slice(2);
if (!protocol) {
  console.error("usage: node call.mjs IDENTITY PEER PROTOCOL [REQUEST]");
  process.exit(2);
}

const client = new Client();
try {
  console.log(JSON.stringify(await client.call(identity, peer, protocol, JSON.parse(request))));
} catch (error) {
  const { name, message, code, fields, kind, data } = error;
  console.error(JSON.stringify({ error: name, message, code, fields, kind, data }));
  process.exitCode = 1;
} finally {
  client.close();
}
