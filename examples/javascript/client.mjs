// A program of a fastn-p2p daemon: it says hello, calls the protocols of peers, and may register its own.

import { encode } from "@msgpack/msgpack";
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Connection, Tag, unpack } from "./connection.mjs";
import { BadReply, ConnectionLost, DaemonBusy, DaemonNotRunning, DeadlineExceeded } from "./errors.mjs";
import { id52 } from "./keys.mjs";
import { Session, WINDOW } from "./session.mjs";

const VERSION = 1;
const NO_CALL_ID = new Uint8Array(0);
const TIMEOUT = 10; // seconds, where the caller says nothing
const EARLIER = 20; // ms that the network is given less than we wait: it knows more about what went wrong
const PATIENCE = 10_000; // ms in which a daemon that runs has its processes back
const PAUSE = { first: 10, longest: 100 }; // ms between attempts to connect

export class Client {
  #home;
  #program;
  #gateway = new Standing(() => this.#hello());
  #network = new Standing(() => this.connectNetwork());

  /** `home` is the daemon's; `program` is what this one calls itself. Nothing is connected before it is needed. */
  constructor({ home = process.env.FASTN_HOME || join(homedir(), ".fastn"), program = "javascript" } = {}) {
    this.#home = resolve(home);
    this.#program = program;
  }

  /**
   * Calls `peer` (a petname, an ID52 or a ticket) as `identity` ("" for the only one that is online); the reply.
   *
   * Rejects with ApplicationError when the handler says no, with another P2PError when the call fails, and with the
   * reason of `signal` when that aborts: then the call is cancelled.
   */
  async call(identity, peer, protocol, request = null, options = {}) {
    const { instance = "default", command = "" } = options;
    return this.#ask(options, (left) => [
      [Tag.Call, identity, peer, protocol, instance, left, command, NO_CALL_ID, 0],
      { payload: encode(request), accept: ({ payload }) => replyFrom(payload, protocol) },
    ]);
  }

  /** Opens a Session, with the same arguments and errors; `initial` is what the handler is told at first. */
  async open(identity, peer, protocol, initial = null, options = {}) {
    const { instance = "default" } = options;
    return this.#ask(options, (left, network) => [
      [Tag.OpenSession, identity, peer, protocol, instance, left, WINDOW],
      {
        payload: encode(initial),
        accept: ({ fields: [credit, key, petname] }, id) =>
          new Session(network, id, { credit, peer: id52(key), petname }),
      },
    ]);
  }

  /**
   * Asks the network within a time limit; `question(left, network)` makes the message and options
   * of `Connection.ask`; `left` is in ms.
   */
  async #ask({ timeout = TIMEOUT, signal }, question) {
    signal?.throwIfAborted();
    const end = Date.now() + timeout * 1000;
    const over = new AbortController();
    const timer = setTimeout(() => over.abort(new DeadlineExceeded({ seconds: timeout })), timeout * 1000);
    const cancel = () => over.abort(signal.reason);
    signal?.addEventListener("abort", cancel);
    try {
      const network = await unlessAborted(this.#network.connection(), over.signal);
      const [message, options] = question(Math.max(1, end - Date.now() - EARLIER), network);
      return await network.ask(message, { ...options, signal: over.signal });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Sends a command to the gateway, as in `[Tag.RequestGrant, "alice", "Echo", "default"]`; the fields of its answer. */
  async command(message) {
    const gateway = await this.#gateway.connection();
    return (await gateway.ask(message)).fields;
  }

  /** A new connection to the network, for whoever wants one of its own. */
  async connectNetwork() {
    const { route } = await this.#gateway.connection();
    return this.#connect("network", () => route);
  }

  /** Ends the connections; calls in flight end with ConnectionLost. */
  close() {
    this.#network.close();
    this.#gateway.close();
  }

  async #hello() {
    const gateway = await this.#connect("gateway", () => join(this.#sockets(), "control.sock"));
    const { fields } = await gateway.ask([Tag.Hello, VERSION, this.#program]);
    const [, , route] = fields;
    return Object.assign(gateway, { route });
  }

  /** Where the sockets are: in the home, unless their paths would be too long there. */
  #sockets() {
    try {
      return readFileSync(join(this.#home, "sockets"), "utf8").trimEnd();
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      return this.#home;
    }
  }

  /** Tries until there is a connection: while the daemon runs, a process that has died is soon back. */
  async #connect(actor, path) {
    const end = Date.now() + PATIENCE;
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

  /** A daemon holds a lock on a file of its home; the kernel lists all locks, as device and inode. */
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

/** A connection that is made when it is needed, and made anew when it has ended. */
class Standing {
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

/** What `promise` says, or the reason of the signal, whichever comes first. */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    promise.then(resolve, reject);
  });
}
