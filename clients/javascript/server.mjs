// Serve a protocol: register handlers with the daemon, and again after a restart of a process of it.

import { setTimeout as sleep } from "node:timers/promises";

import { Tag } from "./connection.mjs";
import { ApplicationError, BadRequest, CommandNotFound, ConnectionLost, Forbidden, HandlerFailed, P2PError } from "./errors.mjs";
import { id52 } from "./keys.mjs";
import { pack, unpack } from "./payload.mjs";
import { RESET_FAILED, Session } from "./session.mjs";

const PAUSE = 100; // ms before the next attempt to register
const MAX_KIND = 128; // characters: a header is limited
const MAX_TEXT = 4096;
const NO_WORKER = Buffer.alloc(0);
const ATTEMPT = 8; // index of the field of DeliverCall that counts earlier attempts

/**
 * Serves `protocol` as `identity` until `signal` aborts. Then finishes the requests in flight and returns.
 *
 * `handlers.request(request, context)` returns the reply, or throws ApplicationError. `context` has `peer` (the caller's
 * ID52), `petname` ("" if it has none), its `path`, the `identity` and `instance` that are called, the `command`, the
 * `callId`, the `requestId` (the name of the call in logs, which the caller may have chosen), `timeout` (seconds) and `signal`, which aborts when the caller no longer waits.
 * `handlers.commands` has such a function for each command of the protocol.
 * `handlers.session(session, initial)` serves a Session. It is accepted by `session.accept()`, or when it is first read
 * or written. A handler that throws before has rejected it. It is closed when the handler returns, and reset when it
 * throws later.
 * Every handler is optional.
 *
 * With `stateless`, callers spread requests and sessions over all daemons of the identity that serve the protocol: say so
 * if the program keeps nothing of what it was asked before.
 *
 * `onReady` is called after each registration. Rejects if the first registration fails. Later errors that can pass are
 * retried.
 */
export async function serve(client, identity, protocol, handlers, options = {}) {
  const { instance = "default", allow = ["peers"], limit = 64, stateless = false, signal, onReady = () => {} } = options;
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
      await connection.request([Tag.RegisterBinding, ...binding, allow, secret, limit, NO_WORKER, false, false, stateless]);
      served = true;
      onReady();
      await Promise.race([connection.ended, aborted(signal)]);
      if (signal?.aborted) {
        await connection.request([Tag.UnregisterBinding, ...binding]).catch(() => {}); // the connection may have ended
        await requests.finished();
        await connection.finish();
      }
    } catch (error) {
      if (error instanceof Forbidden && served) grant = undefined; // the daemon was restarted
      else if (!(error instanceof ConnectionLost || (served && error.retryable))) throw error;
      await sleep(PAUSE);
    } finally {
      connection?.close();
    }
  }
}

/** Requests and sessions of one connection. They end with it. */
class Requests {
  #connection;
  #binding;
  #running = new Set(); // promises
  #aborts = new Map(); // id in hexadecimal → AbortController of a request

  constructor(connection, binding) {
    this.#connection = connection;
    this.#binding = binding;
    connection.onRequest = (...message) => this.#onMessage(...message);
    connection.ended.then(() => this.#aborts.forEach((abort) => abort.abort()));
  }

  /** Resolves when all requests and sessions have ended. */
  async finished() {
    await Promise.all(this.#running);
  }

  #onMessage(id, tag, fields, payload) {
    const key = id.toString("hex");
    if (tag === Tag.Cancel) {
      this.#aborts.get(key)?.abort();
    } else if (tag === Tag.DeliverCall && fields[ATTEMPT]) {
      this.#connection.send(id, [Tag.CallUnknown]); // this server stores no replies
    } else if (tag === Tag.DeliverCall) {
      const abort = new AbortController();
      this.#aborts.set(key, abort);
      this.#run(this.#answer(id, fields, payload, abort.signal).finally(() => this.#aborts.delete(key)));
    } else if (tag === Tag.DeliverSession) {
      this.#run(this.#serveSession(id, fields, payload));
    } // other messages belong to requests that have ended
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
      answer = this.#errorReply(error);
    }
    if (signal.aborted) return; // the caller no longer waits
    try {
      this.#connection.send(id, ...answer);
    } catch (error) {
      this.#connection.send(id, ...this.#errorReply(error)); // the reply is too large
    }
  }

  async #reply([peer, petname, identity, , instance, deadline, command, callId, , path, , , requestId = ""], payload, signal) {
    const handle = command ? this.#command(command) : this.#handler("request");
    const request = this.#decoded(payload);
    const timeout = deadline / 1000;
    const context = { peer: id52(peer), petname, path, identity, instance, command, callId, requestId, timeout, signal };
    return pack((await handle(request, context)) ?? null);
  }

  async #serveSession(id, [peer, petname, , , , , credit, path, , , , , requestId = ""], payload) {
    let handle, initial;
    try {
      handle = this.#handler("session");
      initial = this.#decoded(payload);
    } catch (error) {
      this.#connection.send(id, ...this.#errorReply(error));
      return;
    }
    const session = new Session(this.#connection, id, { credit, peer: id52(peer), petname, path, requestId, accepted: false });
    try {
      await handle(session, initial);
      session.accept();
      await session.close();
    } catch (error) {
      if (session.reject(error)) {
        this.#connection.send(id, ...this.#errorReply(error));
        return;
      }
      if (!(error instanceof P2PError)) console.error(error); // a defect of the handler
      await session.close(RESET_FAILED);
    }
  }

  #handler(kind) {
    const { handlers, protocol } = this.#binding;
    if (!handlers[kind]) throw new BadRequest({ protocol, reason: `it accepts no ${kind}s` });
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

  #errorReply(error) {
    const { protocol, server } = this.#binding;
    if (error instanceof ApplicationError) {
      const { kind, message, data } = error;
      try {
        return [[Tag.ApplicationErrorReply, String(kind).slice(0, MAX_KIND), message.slice(0, MAX_TEXT)], pack(data)];
      } catch (unfit) {
        error = unfit; // msgpack cannot encode the data
      }
    }
    if (error instanceof P2PError) return [[Tag.ErrorReply, error.code, error.fields]];
    console.error(error); // the caller gets only the name of the error
    const { code, fields } = new HandlerFailed({ peer: server, protocol, reason: error?.name ?? "Error" });
    return [[Tag.ErrorReply, code, fields]];
  }
}

/** Resolves when the signal aborts, or at once if it has aborted. */
function aborted(signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve();
    signal?.addEventListener("abort", resolve, { once: true });
  });
}
