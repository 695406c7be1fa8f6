// Serves the protocol Timer as an identity: node serve.mjs IDENTITY
//
// The reply to {"seconds": 2} is {"waited": 2}, after two seconds, unless the caller cancels the call.

import { setTimeout as sleep } from "node:timers/promises";

import { ApplicationError, BadRequest, Client, serve } from "fastn-p2p-client";

const [identity] = process.argv.slice(2);
if (!identity) {
  console.error("usage: node serve.mjs IDENTITY");
  process.exit(2);
}

async function timer(request, { peer, signal }) {
  const seconds = request?.seconds;
  if (typeof seconds !== "number") throw new BadRequest({ protocol: "Timer", reason: "seconds must be a number" });
  if (seconds < 0) throw new ApplicationError("Negative", "seconds must not be negative", { seconds });
  try {
    await sleep(seconds * 1000, undefined, { signal });
  } finally {
    console.log(signal.aborted ? `cancelled by ${peer}` : `waited ${seconds} s for ${peer}`);
  }
  return { waited: seconds };
}

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());

const client = new Client();
try {
  await serve(client, identity, "Timer", { request: timer }, {
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
