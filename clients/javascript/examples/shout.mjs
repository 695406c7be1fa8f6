// Serves the protocol Shout as an identity: node shout.mjs IDENTITY
//
// Returns the bytes of a session with ASCII letters in upper case, until the peer has ended its direction.

import { Client, serve } from "fastn-p2p-client";

const [identity] = process.argv.slice(2);
if (!identity) {
  console.error("usage: node shout.mjs IDENTITY");
  process.exit(2);
}

async function shout(session) {
  for await (const chunk of session) {
    await session.write(chunk.map((byte) => (byte >= 97 && byte <= 122 ? byte - 32 : byte)));
  }
}

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());

const client = new Client();
try {
  await serve(client, identity, "Shout", { session: shout }, {
    allow: ["everyone"],
    signal: stop.signal,
    onReady: () => console.log("serving"),
  });
} catch (error) {
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
