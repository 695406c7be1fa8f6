// A protocol that this program serves: registered with the daemon, and again whenever a part of it comes back.

import { encode } from "@msgpack/msgpack";
import { setTimeout as sleep } from "node:timers/promises";

import { Tag, unpack } from "./connection.mjs";
import { ApplicationError, BadRequest, CommandNotFound, ConnectionLost, Forbidden, HandlerFailed, P2PError } from "./errors.mjs";
import { id52 } from "./keys.mjs";
import { RESET_FAILED, Session, WINDOW } from "./session.mjs";

const PAUSE = 100; // ms before it registers again
const MAX_KIND = 128; // characters: a header is limited
const MAX_TEXT = 4096;
const NO_KEY = new Uint8Array(0);
const ATTEMPT = 8; // which field of a DeliverCall says how often the call has been sent before

/**
 * Serves `protocol` as `identity` until `signal` aborts; then finishes what is in flight, and returns.
 *
 * `handlers.request(request, context)` returns the reply, or throws ApplicationError to say no. The context has `peer`
 * (the caller's ID52), `petname` ("" for strangers), `timeout` (in seconds) and `signal`, which aborts when
 * nobody waits for the reply any more; `handlers.commands` has the like for each of the protocol's commands.
 * `handlers.session(session, initial)` has a Session to itself: it is closed when that returns, and reset when it throws.
 * Each may be missing.
 *
 * `onReady` is called each time when requests can come. Rejects when it cannot be served at all; what goes wrong later
 * and can pass is waited for.
 */
export async function serve(client, identity, protocol, handlers, options = {}) {
  const { instance = "default", allow = ["peers"], limit = 64, signal, onReady = () => {} } = options;
  const binding = [identity, protocol, instance];
  let grant;
  let served = false;
  while (!signal?.aborted) {
    let connection;
    try {
      // A grant holds as long as the daemon runs, longer than any of the connections.
      grant ??= await client.command([Tag.RequestGrant, ...binding]);
      const [secret, key] = grant;
      connection = await client.connectNetwork();
      const requests = new Requests(connection, { handlers, protocol, server: id52(key) });
      await connection.ask([Tag.RegisterBinding, ...binding, allow, secret, limit]);
      served = true;
      onReady();
      await Promise.race([connection.ended, aborted(signal)]);
      if (signal?.aborted) {
        await connection.ask([Tag.UnregisterBinding, ...binding]).catch(() => {}); // it may be gone already
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

/** The requests and sessions of one connection: they end with it. */
class Requests {
  #connection;
  #binding;
  #running = new Set(); // promises
  #aborts = new Map(); // id in hexadecimal → AbortController of a request

  constructor(connection, binding) {
    this.#connection = connection;
    this.#binding = binding;
    connection.onRequest = (...message) => this.#take(...message);
    connection.ended.then(() => this.#aborts.forEach((abort) => abort.abort()));
  }

  /** Resolves when all that came has ended. */
  async finished() {
    await Promise.all(this.#running);
  }

  #take(id, tag, fields, payload) {
    const key = id.toString("hex");
    if (tag === Tag.Cancel) {
      this.#aborts.get(key)?.abort();
    } else if (tag === Tag.DeliverCall && fields[ATTEMPT]) {
      this.#connection.send(id, [Tag.CallUnknown]); // calls are not remembered here
    } else if (tag === Tag.DeliverCall) {
      const abort = new AbortController();
      this.#aborts.set(key, abort);
      this.#run(this.#answer(id, fields, payload, abort.signal).finally(() => this.#aborts.delete(key)));
    } else if (tag === Tag.DeliverSession) {
      this.#run(this.#converse(id, fields, payload));
    } // else it belongs to something that has ended
  }

  #run(work) {
    const running = work.finally(() => this.#running.delete(running));
    this.#running.add(running);
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

  async #reply([peer, petname, , , , deadline, command], payload, signal) {
    const handle = command ? this.#command(command) : this.#handler("request");
    const request = this.#decoded(payload);
    const context = { peer: id52(peer), petname, timeout: deadline / 1000, signal };
    return encode((await handle(request, context)) ?? null);
  }

  async #converse(id, [peer, petname, , , , , credit], payload) {
    let handle, initial;
    try {
      handle = this.#handler("session");
      initial = this.#decoded(payload);
    } catch (error) {
      this.#connection.send(id, ...this.#refusal(error));
      return;
    }
    const session = new Session(this.#connection, id, { credit, peer: id52(peer), petname });
    this.#connection.send(id, [Tag.SessionOpened, WINDOW, NO_KEY, ""]);
    try {
      await handle(session, initial);
      await session.close();
    } catch (error) {
      if (!(error instanceof P2PError)) console.error(error); // not the other side's doing
      await session.close(RESET_FAILED);
    }
  }

  #handler(kind) {
    const { handlers, protocol } = this.#binding;
    if (!handlers[kind]) throw new BadRequest({ protocol, reason: `it takes no ${kind}s` });
    return handlers[kind];
  }

  #command(command) {
    const { handlers, protocol, server } = this.#binding;
    if (!Object.hasOwn(handlers.commands ?? {}, command)) throw new CommandNotFound({ peer: server, protocol, command });
    return handlers.commands[command];
  }

  #decoded(payload) {
    try {
      return unpack(payload);
    } catch (error) {
      throw new BadRequest({ protocol: this.#binding.protocol, reason: error.fields.reason });
    }
  }

  #refusal(error) {
    const { protocol, server } = this.#binding;
    if (error instanceof ApplicationError) {
      const { kind, message, data } = error;
      try {
        return [[Tag.ApplicationErrorReply, String(kind).slice(0, MAX_KIND), message.slice(0, MAX_TEXT)], encode(data)];
      } catch (unfit) {
        error = unfit; // data that msgpack cannot say
      }
    }
    if (error instanceof P2PError) return [[Tag.ErrorReply, error.code, error.fields]];
    console.error(error); // what went wrong in here is no business of the caller's
    const { code, fields } = new HandlerFailed({ peer: server, protocol, reason: error?.name ?? "Error" });
    return [[Tag.ErrorReply, code, fields]];
  }
}

/** Resolves when the signal aborts, or at once when it has. */
function aborted(signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve();
    signal?.addEventListener("abort", resolve, { once: true });
  });
}
