// One connection to one socket of the daemon: frames, ids, questions and their answers.

import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

import { ApplicationError, ConnectionLost, P2PError, PayloadTooLarge } from "./errors.mjs";

/** The tags of the messages that are used here. */
export const Tag = {
  Failure: 0,
  Cancel: 1,
  Done: 2,
  Hello: 10,
  Register: 22,
  Call: 60,
  Reply: 61,
  ApplicationFailure: 62,
  Serve: 71,
  Withdraw: 72,
  Deliver: 80,
  Offer: 81,
};

const MAX_PAYLOAD = 16_777_216;
const HANDSHAKE_MS = 500;
const LINGER_MS = 1000;
const NOTHING = new Uint8Array(0);

/**
 * One connection. It ends once, by whoever ends it, and takes everything that is in flight with it: the ZeroMQ socket
 * does not reconnect behind its back. Whoever needs another connection opens another one.
 */
export class Connection {
  #path;
  #socket;
  #ids = 0n;
  #asked = new Map(); // id in hexadecimal → what becomes of the answer
  #sending = Promise.resolve(); // the socket takes one message at a time
  #end;

  /** Resolves when the connection has ended. */
  ended = new Promise((resolve) => (this.#end = resolve));

  /** Called with `(id, tag, fields, payload)` for what comes and answers nothing. */
  onRequest = () => {};

  /** Connects; rejects with ConnectionLost when nobody listens or no greeting comes. */
  static async open(path) {
    const connection = new Connection(path);
    await connection.#connect();
    void connection.#receive();
    return connection;
  }

  constructor(path) {
    this.#path = path;
    this.#socket = new Dealer({
      immediate: true,
      linger: 0,
      reconnectInterval: -1,
      handshakeInterval: HANDSHAKE_MS,
      sendHighWaterMark: 0,
      receiveHighWaterMark: 0,
    });
  }

  #connect() {
    return new Promise((resolve, reject) => {
      const { events } = this.#socket;
      const failed = () => {
        reject(new ConnectionLost({ what: this.#path }));
        // What had arrived before the end is read first: the loop that reads it runs before this does.
        setImmediate(() => this.close());
      };
      events.on("handshake", resolve);
      for (const end of ["close", "disconnect", "handshake:error:other", "handshake:error:protocol"]) {
        events.on(end, failed);
      }
      this.#socket.connect(`ipc://${this.#path}`);
    });
  }

  async #receive() {
    try {
      for await (const frames of this.#socket) {
        // A ZeroMQ message is one message of three frames, or a group of several.
        for (let first = 0; first + 3 <= frames.length; first += 3) {
          this.#take(...frames.slice(first, first + 3));
        }
      }
    } finally {
      this.close();
    }
  }

  #take(id, header, payload) {
    const [tag, ...fields] = decode(header);
    const key = id.toString("hex");
    const asked = this.#asked.get(key);
    if (tag === Tag.Deliver || tag === Tag.Offer || tag === Tag.Cancel) {
      this.onRequest(id, tag, fields, payload);
    } else if (asked) {
      this.#asked.delete(key);
      if (tag === Tag.Failure) asked.reject(P2PError.from(...fields));
      else if (tag === Tag.ApplicationFailure) asked.reject(new ApplicationError(...fields, unpack(payload)));
      else asked.resolve({ tag, fields, payload });
    } // else it is an answer that nobody waits for any more
  }

  /** Sends one message; an answer, if there is one, is not waited for. Throws PayloadTooLarge. */
  send(id, message, payload = NOTHING) {
    if (payload.length > MAX_PAYLOAD) throw new PayloadTooLarge({ size: payload.length, limit: MAX_PAYLOAD });
    const frames = [id, encode(message), payload];
    // It fails only when the connection has ended, and then everybody is told anyway.
    this.#sending = this.#sending.then(() => this.#socket.send(frames)).catch(() => {});
  }

  /** Sends a request; its answer as `{tag, fields, payload}`. When `signal` aborts, the request is cancelled. */
  async ask(message, { payload = NOTHING, signal } = {}) {
    signal?.throwIfAborted();
    if (this.#socket.closed) throw new ConnectionLost({ what: this.#path });
    const id = Buffer.alloc(8);
    id.writeBigUInt64BE(++this.#ids);
    const key = id.toString("hex");
    const answer = new Promise((resolve, reject) => this.#asked.set(key, { resolve, reject }));
    const cancel = () => {
      this.#asked.get(key)?.reject(signal.reason);
      this.#asked.delete(key);
      this.send(id, [Tag.Cancel]);
    };
    signal?.addEventListener("abort", cancel);
    try {
      this.send(id, message, payload);
      return await answer;
    } finally {
      this.#asked.delete(key);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Ends the connection once what was said last is on its way. */
  async finish() {
    await this.#sending;
    if (!this.#socket.closed) this.#socket.linger = LINGER_MS;
    this.close();
  }

  /** Ends the connection, and with ConnectionLost whatever is in flight. */
  close() {
    if (!this.#socket.closed) this.#socket.close();
    for (const { reject } of this.#asked.values()) reject(new ConnectionLost({ what: this.#path }));
    this.#asked.clear();
    this.#end();
  }
}

/** What a payload says; an empty one says nothing. */
export function unpack(payload) {
  return payload.length ? decode(payload) : null;
}
