// A program of a fastn-p2p daemon: it says hello, calls the protocols of peers, and may register its own.

import { encode } from "@msgpack/msgpack";
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Connection, Tag, unpack } from "./connection.mjs";
import { ConnectionLost, DaemonBusy, DaemonNotRunning, DeadlineExceeded } from "./errors.mjs";

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
    const { instance = "default", command = "", timeout = TIMEOUT, signal } = options;
    const end = Date.now() + timeout * 1000;
    const over = new AbortController();
    const late = () => over.abort(new DeadlineExceeded({ seconds: timeout }));
    const cancel = () => over.abort(signal.reason);
    const timer = setTimeout(late, timeout * 1000);
    signal?.addEventListener("abort", cancel);
    try {
      signal?.throwIfAborted();
      const network = await unlessAborted(this.#network.connection(), over.signal);
      const left = Math.max(1, end - Date.now() - EARLIER);
      const message = [Tag.Call, identity, peer, protocol, instance, left, command, NO_CALL_ID, 0];
      const answer = await network.ask(message, { payload: encode(request), signal: over.signal });
      return unpack(answer.payload);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Sends a command to the gateway, as in `[Tag.Register, "alice", "Echo", "default"]`; the fields of its answer. */
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

/** What `promise` says, or the reason of the signal, whichever comes first. */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    promise.then(resolve, reject);
  });
}
