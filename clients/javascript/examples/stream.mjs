// Opens a session: node stream.mjs IDENTITY PEER PROTOCOL
//
// Sends standard input to the peer and writes received bytes to standard output. If a direction ends early, prints the
// error to standard error; the exit code is then 1.

import { Client } from "fastn-p2p-client";

const [identity, peer, protocol] = process.argv.slice(2);
if (!protocol) {
  console.error("usage: node stream.mjs IDENTITY PEER PROTOCOL");
  process.exit(2);
}

async function send(session) {
  for await (const chunk of process.stdin) await session.write(chunk);
  await session.end();
}

async function receive(session) {
  for await (const chunk of session) {
    if (!process.stdout.write(chunk)) await new Promise((resolve) => process.stdout.once("drain", resolve));
  }
}

const client = new Client();
try {
  const session = await client.open(identity, peer, protocol);
  await Promise.all([send(session), receive(session)]);
} catch (error) {
  const { name, message, code, fields, kind, data } = error;
  console.error(JSON.stringify({ error: name, message, code, fields, kind, data }));
  process.exitCode = 1;
} finally {
  client.close();
  process.stdin.destroy();
}
