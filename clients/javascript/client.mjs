// Client of a fastn-p2p daemon: sends Hello, calls protocols of peers, and opens sessions.

import { randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Connection, Tag } from "./connection.mjs";
import {
  ApplicationError, BadReply, ConnectionLost, DaemonBusy, DaemonNotRunning, DeadlineExceeded, P2PError,
} from "./errors.mjs";
import { id52 } from "./keys.mjs";
import { pack, unpack } from "./payload.mjs";
import { CallRetry } from "./retry.mjs";
import { Session, WINDOW } from "./session.mjs";

const VERSION = 1;
const NO_CALL_ID = new Uint8Array(0);
const ID_PREFIX = randomBytes(6).toString("hex"); // of the request ids of this process
const TIMEOUT = 10; // seconds, unless the caller gives another one
const ADVANCE = 20; // ms by which the network's timeout is shorter, so that it can reply with the reason
const RESTART_TIMEOUT = 10_000; // ms in which a running daemon restarts a process
const PAUSE = { first: 10, longest: 100 }; // ms between attempts to connect

let requests = 0;

export class Client {
  #home;
  #program;
  #gateway = new ReconnectingConnection(() => this.#hello());
  #network = new ReconnectingConnection(() => this.connectNetwork());

  /** `home` is the home of the daemon, `program` the name of this program. Connects at the first request. */
  constructor({ home = process.env.FASTN_HOME || join(homedir(), ".fastn"), program = "javascript" } = {}) {
    this.#home = resolve(home);
    this.#program = program;
  }

  /**
   * Calls `peer` (a petname, an ID52 or a ticket) as `identity` ("" for the only one online). Returns the reply.
   *
   * Rejects with ApplicationError for an error of the handler, and with P2PError if the call fails. If `signal` aborts,
   * the call is cancelled and rejects with the reason of the signal. `requestId` is the name of the call in the logs of
   * both daemons, at most 64 ASCII letters, digits and -._+/=; `requestId` of an error has it, also if none was given.
   *
   * With `retry` the call is sent again until its timeout: when a process or a connection that had it is lost, when
   * nobody serves it yet, or while a clock is wrong. It is still executed once, as long as the process that serves it
   * lives and remembers it; OutcomeUnknown says that it may have been executed by a daemon that does not come back, or
   * that was started again.
   */
  async call(identity, peer, protocol, request = null, options = {}) {
    const { instance = "default", command = "", retry = false, timeout = TIMEOUT } = options;
    const payload = pack(request);
    const retries = retry ? new CallRetry(timeout) : undefined;
    const prepare = (left, _network, requestId) => [
      [
        Tag.Call, identity, peer, protocol, instance, left, command,
        retries?.callId ?? NO_CALL_ID, retries?.attempt ?? 0, requestId, "", retries?.begin() ?? 0,
      ],
      { payload, accept: ({ payload }) => replyFrom(payload, protocol) },
    ];
    return this.#request(options, prepare, retries);
  }

  /** Opens a Session, with the same arguments and errors. `initial` is the initial data for the handler. */
  async open(identity, peer, protocol, initial = null, options = {}) {
    const { instance = "default" } = options;
    return this.#request(options, (left, network, requestId) => [
      [Tag.OpenSession, identity, peer, protocol, instance, left, WINDOW, requestId],
      {
        payload: pack(initial),
        accept: ({ fields: [credit, key, petname] }, id) =>
          new Session(network, id, { credit, peer: id52(key), petname, requestId }),
      },
    ]);
  }

  /**
   * Sends a request to the network process. `prepare(left, network, requestId)` returns the message and the options
   * of `Connection.request`; `left` is the remaining time in ms. `retries` are the attempts; without them there is one.
   */
  async #request({ timeout = TIMEOUT, signal, requestId = "" }, prepare, retries) {
    signal?.throwIfAborted();
    const name = requestId || retries?.callId.toString("hex") || `${ID_PREFIX}-${(++requests).toString(16)}`;
    const end = Date.now() + timeout * 1000;
    const expired = new AbortController();
    const timer = setTimeout(() => expired.abort(new DeadlineExceeded({ seconds: timeout })), timeout * 1000);
    const cancel = () => expired.abort(signal.reason);
    signal?.addEventListener("abort", cancel);
    try {
      while (true) {
        let sent = false;
        try {
          const network = await unlessAborted(this.#network.connection(), expired.signal);
          const [message, options] = prepare(Math.max(1, end - Date.now() - ADVANCE), network, name);
          sent = !network.closed;
          return await network.request(message, { ...options, signal: expired.signal });
        } catch (error) {
          if (!retries) throw error;
          await unlessAborted(sleep(retries.pauseAfter(error, end - Date.now(), sent)), expired.signal);
        }
      }
    } catch (error) {
      if (error instanceof P2PError || error instanceof ApplicationError) error.requestId = name;
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Sends a request to the gateway, e.g. `[Tag.RequestGrant, "alice", "Echo", "default"]`. Returns the reply's fields. */
  async command(message) {
    const gateway = await this.#gateway.connection();
    return (await gateway.request(message)).fields;
  }

  /** Opens a new connection to the network process. */
  async connectNetwork() {
    const { route } = await this.#gateway.connection();
    return this.#connect("network", () => route);
  }

  /** Closes the connections. Calls in flight reject with ConnectionLost. */
  close() {
    this.#network.close();
    this.#gateway.close();
  }

  async #hello() {
    const gateway = await this.#connect("gateway", () => join(this.#sockets(), "control.sock"));
    const { fields } = await gateway.request([Tag.Hello, VERSION, this.#program]);
    const [, , route] = fields;
    return Object.assign(gateway, { route });
  }

  /** Returns the directory of the sockets: the home, unless their paths would be too long there. */
  #sockets() {
    try {
      return readFileSync(join(this.#home, "sockets"), "utf8").trimEnd();
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      return this.#home;
    }
  }

  /** Tries to connect until the restart timeout: a running daemon restarts a process that has ended. */
  async #connect(actor, path) {
    const end = Date.now() + RESTART_TIMEOUT;
    for (let pause = PAUSE.first; ; pause = Math.min(2 * pause, PAUSE.longest)) {
      try {
        return await Connection.open(path());
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        if (!this.#daemonRuns()) throw new DaemonNotRunning({ home: this.#home });
        if (Date.now() > end) throw new DaemonBusy({ actor });
      }
      await sleep(pause);
    }
  }

  /** Returns whether a daemon runs. It locks a file in its home; the kernel lists locks by device and inode. */
  #daemonRuns() {
    try {
      const { ino } = statSync(join(this.#home, "lock"));
      const locks = readFileSync("/proc/locks", "utf8").split("\n");
      return locks.some((lock) => lock.split(/\s+/)[5]?.endsWith(`:${ino}`));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      return false;
    }
  }
}

/** A connection that is opened when it is needed, and opened again after it has ended. */
class ReconnectingConnection {
  #open;
  #connecting;

  constructor(open) {
    this.#open = open;
  }

  connection() {
    if (!this.#connecting) {
      const connecting = this.#open();
      const forget = () => {
        if (this.#connecting === connecting) this.#connecting = undefined;
      };
      connecting.then((connection) => connection.ended.then(forget), forget);
      this.#connecting = connecting;
    }
    return this.#connecting;
  }

  close() {
    this.#connecting?.then((connection) => connection.close(), () => {});
  }
}

function replyFrom(payload, protocol) {
  try {
    return unpack(payload);
  } catch (error) {
    throw new BadReply({ protocol, reason: error.fields.reason });
  }
}

/** Settles like `promise`, or rejects with the reason of the signal if that aborts first. */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
  });
}
