// Serves the protocol that fastn_p2p_client.testing checks: node conformance.mjs IDENTITY

import { setTimeout as sleep } from "node:timers/promises";

import { ApplicationError, BadRequest, Client, PeerUnknown, serve, StreamReset } from "fastn-p2p-client";

const PROTOCOL = "Conformance";
const text = new TextEncoder();
const seen = new Map(); // name of an event → how often it has happened
const met = new Map(); // place → numbers that have come, and what wakes them
let release = () => {};

class RuntimeError extends Error {
  name = "RuntimeError";
}

function bad(path, expected) {
  return new BadRequest({ protocol: PROTOCOL, reason: `Expected \`${expected}\` - at \`$.${path}\`` });
}

function note(name) {
  seen.set(name, (seen.get(name) ?? 0) + 1);
}

function tooLong(length) {
  return new ApplicationError("TooLong", `${length} are too many`, { length, limit: 3 });
}

function left(_, { timeout, command, callId, requestId }) {
  return { seconds: timeout, command, call_id: callId, request_id: requestId };
}

async function hold(name, { signal }) {
  note(`${name} begun`);
  await sleep(60_000, undefined, { signal }).catch(() => note(`${name} cancelled`));
}

function refuse(length) {
  throw tooLong(length);
}

const commands = {
  "typed.repeat": (order) => {
    if (typeof order.text !== "string") throw bad("text", "str");
    if (!Number.isInteger(order.times)) throw bad("times", "int");
    return { texts: Array(order.times).fill(order.text) };
  },
  "typed.either": ({ type, numbers, text }) =>
    type === "Add" ? numbers.reduce((sum, number) => sum + number, 0) : text.toUpperCase(),
  who: (_, { peer, path, identity, instance }) => ({ key: peer, path, identity, instance }),
  left,
  "left.in-thread": left,
  meet: async ([place, number, count]) => {
    if (!met.has(place)) {
      let wake;
      met.set(place, { numbers: new Set(), all: new Promise((resolve) => (wake = resolve)), wake });
    }
    const { numbers, all, wake } = met.get(place);
    if (numbers.add(number).size === count) wake();
    await all;
    return number;
  },
  hold,
  "hold.in-thread": hold,
  seen: (name) => seen.get(name) ?? 0,
  release: () => release(),
  refuse,
  "refuse.in-thread": refuse,
  crash: (secret) => {
    throw new RuntimeError(secret);
  },
  fail: (who) => {
    throw new PeerUnknown({ peer: who });
  },
  large: (size) => new Uint8Array(size),
  unfit: () => Symbol("unfit"),
};

const sessions = {
  echo: async (session) => {
    for await (const chunk of session) await session.write(chunk);
  },
  count: async (session) => {
    const released = new Promise((resolve) => (release = resolve));
    session.accept();
    await released;
    let sum = 0;
    for await (const chunk of session) sum += chunk.length;
    await session.write(text.encode(`${sum}`));
  },
  refuse: (_, length) => refuse(length),
  raise: async (session) => {
    session.accept();
    throw new RuntimeError("as ordered");
  },
  reset: async (session, code) => session.reset(code),
  watch: async (session) => {
    try {
      for await (const _ of session);
    } catch (error) {
      if (!(error instanceof StreamReset)) throw error;
      note(`reset ${error.fields.reset_code}`);
    }
  },
  return: async (session) => session.accept(),
  who: async (session) => session.write(text.encode(`${session.peer} ${session.path}`)),
};

async function session(session, { do: what, length = 0 }) {
  if (!Object.hasOwn(sessions, what)) throw bad("do", "str");
  if (!Number.isInteger(length)) throw bad("length", "int");
  await sessions[what](session, length);
}

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const client = new Client();
await serve(client, process.argv[2], PROTOCOL, { request: (value) => value, commands, session }, {
  allow: ["everyone"],
  signal: stop.signal,
  onReady: () => console.log("serving"),
});
client.close();
