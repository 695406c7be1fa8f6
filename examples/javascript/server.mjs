// A protocol that this program serves: registered with the daemon, and again whenever a part of it comes back.

import { encode } from "@msgpack/msgpack";
import { setTimeout as sleep } from "node:timers/promises";

import { Tag, unpack } from "./connection.mjs";
import { ApplicationError, BadRequest, ConnectionLost, Forbidden, HandlerFailed, P2PError } from "./errors.mjs";

const PAUSE = 100; // ms before it registers again

/**
 * Serves `protocol` as `identity` until `signal` aborts; then finishes what is in flight, and returns.
 *
 * `handler(request, context)` returns the reply, or throws ApplicationError to say no. The context has `peer` (the
 * caller's ID52), `petname` ("" for strangers), `command`, `timeout` (in seconds) and `signal`, which aborts when
 * nobody waits for the reply any more. `onReady` is called each time when requests can come. Rejects when it cannot
 * be served at all; what goes wrong later and can pass is waited for.
 */
export async function serve(client, identity, protocol, handler, options = {}) {
  const { instance = "default", allow = ["peers"], limit = 64, signal, onReady = () => {} } = options;
  const binding = [identity, protocol, instance];
  let grant;
  let served = false;
  while (!signal?.aborted) {
    let connection;
    try {
      // A grant holds as long as the daemon runs, longer than any of the connections.
      grant ??= await client.command([Tag.Register, ...binding]);
      const [secret, key] = grant;
      connection = await client.connectNetwork();
      const requests = new Requests(connection, { handler, protocol, server: id52(key) });
      await connection.ask([Tag.Serve, ...binding, allow, secret, limit]);
      served = true;
      onReady();
      await Promise.race([connection.ended, aborted(signal)]);
      if (signal?.aborted) {
        await connection.ask([Tag.Withdraw, ...binding]).catch(() => {}); // it may be gone already
        await requests.finished();
        await connection.finish();
      }
    } catch (error) {
      if (error instanceof Forbidden && served) grant = undefined; // the daemon has been started anew
      else if (!(error instanceof ConnectionLost || (served && error.retryable))) throw error;
      await sleep(PAUSE);
    } finally {
      connection?.close();
    }
  }
}

/** The requests of one connection: they end with it. */
class Requests {
  #connection;
  #binding;
  #running = new Map(); // id in hexadecimal → { abort, done }

  constructor(connection, binding) {
    this.#connection = connection;
    this.#binding = binding;
    connection.onRequest = (...message) => this.#take(...message);
    connection.ended.then(() => this.#running.forEach(({ abort }) => abort.abort()));
  }

  /** Resolves when all that came has been answered. */
  async finished() {
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #take(id, tag, fields, payload) {
    const key = id.toString("hex");
    if (tag === Tag.Cancel) {
      this.#running.get(key)?.abort.abort();
    } else if (tag === Tag.Offer) {
      const { protocol } = this.#binding;
      this.#connection.send(id, ...this.#refusal(new BadRequest({ protocol, reason: "it takes no sessions" })));
    } else {
      const abort = new AbortController();
      const done = this.#answer(id, fields, payload, abort.signal).finally(() => this.#running.delete(key));
      this.#running.set(key, { abort, done });
    }
  }

  async #answer(id, fields, payload, signal) {
    let answer;
    try {
      answer = [[Tag.Reply], await this.#reply(fields, payload, signal)];
    } catch (error) {
      answer = this.#refusal(error);
    }
    if (signal.aborted) return; // nobody waits for it
    try {
      this.#connection.send(id, ...answer);
    } catch (error) {
      this.#connection.send(id, ...this.#refusal(error)); // too large
    }
  }

  async #reply([peer, petname, , protocol, , deadline, command], payload, signal) {
    let request;
    try {
      request = unpack(payload);
    } catch (error) {
      throw new BadRequest({ protocol, reason: `not msgpack: ${error.message}` });
    }
    const context = { peer: id52(peer), petname, command, timeout: deadline / 1000, signal };
    return encode((await this.#binding.handler(request, context)) ?? null);
  }

  #refusal(error) {
    if (error instanceof ApplicationError) {
      return [[Tag.ApplicationFailure, error.kind, error.message], encode(error.data)];
    }
    const { protocol, server } = this.#binding;
    if (error instanceof P2PError) return [[Tag.Failure, error.code, error.fields]];
    console.error(error); // what went wrong in here is no business of the caller's
    const { code, fields } = new HandlerFailed({ peer: server, protocol, reason: error?.name ?? "Error" });
    return [[Tag.Failure, code, fields]];
  }
}

/** Resolves when the signal aborts, or at once when it has. */
function aborted(signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve();
    signal?.addEventListener("abort", resolve, { once: true });
  });
}

/** A public key as text: base32hex, lower case, without padding. */
function id52(key) {
  const bits = Array.from(key, (byte) => byte.toString(2).padStart(8, "0")).join("").padEnd(260, "0");
  return bits.replace(/.{5}/g, (five) => parseInt(five, 2).toString(32));
}
