// One connection to one socket of the daemon: frames, ids, questions and their answers.

import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

import { ApplicationError, BadMessage, ConnectionLost, P2PError, PayloadTooLarge } from "./errors.mjs";

/** The tags of the messages that are used here. */
export const Tag = {
  ErrorReply: 0,
  Cancel: 1,
  Ack: 2,
  LongReply: 3,
  Hello: 10,
  RequestGrant: 22,
  Call: 60,
  Reply: 61,
  ApplicationErrorReply: 62,
  OpenSession: 63,
  SessionOpened: 64,
  SessionData: 65,
  EndOfStream: 66,
  WindowUpdate: 67,
  ResetStream: 68,
  StopSending: 69,
  RegisterBinding: 71,
  UnregisterBinding: 72,
  DeliverCall: 80,
  DeliverSession: 81,
  CallUnknown: 82,
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
  #receivers = new Map(); // id in hexadecimal → who takes what comes under it, or hears that the connection is lost
  #sending = Promise.resolve(); // the socket takes one message at a time
  #end;

  /** Resolves when the connection has ended. */
  ended = new Promise((resolve) => (this.#end = resolve));

  /** Called with `(id, tag, fields, payload)` for what comes under an id that nobody here waits for. */
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
    const receiver = this.#receivers.get(id.toString("hex"));
    if (receiver) receiver.take(tag, fields, payload);
    else this.onRequest(id, tag, fields, payload);
  }

  /** `receiver.take(tag, fields, payload)` is called with all that comes under this id, and `receiver.lost(error)`. */
  attach(id, receiver) {
    if (this.#socket.closed) throw new ConnectionLost({ what: this.#path });
    this.#receivers.set(id.toString("hex"), receiver);
  }

  /** What comes under this id is dropped from now on. */
  detach(id) {
    this.#receivers.delete(id.toString("hex"));
  }

  newId() {
    const id = Buffer.alloc(8);
    id.writeBigUInt64BE(++this.#ids);
    return id;
  }

  /** Sends one message; an answer, if there is one, is not waited for. Throws PayloadTooLarge. */
  send(id, message, payload = NOTHING) {
    if (payload.length > MAX_PAYLOAD) throw new PayloadTooLarge({ size: payload.length, limit: MAX_PAYLOAD });
    const frames = [id, encode(message), payload];
    // It fails only when the connection has ended, and then everybody is told anyway.
    this.#sending = this.#sending.then(() => this.#socket.send(frames)).catch(() => {});
  }

  /**
   * Sends a request; what `accept(answer, id)` makes of its answer, `{tag, fields, payload}`: by default, the answer.
   * Rejects with the error that is the answer. When `signal` aborts, the request is cancelled.
   */
  async ask(message, { payload = NOTHING, signal, accept = (answer) => answer } = {}) {
    signal?.throwIfAborted();
    const id = this.newId();
    const answer = new Promise((resolve, reject) => {
      const take = (tag, fields, payload) => {
        this.detach(id);
        try {
          if (tag === Tag.LongReply) [[tag, ...fields], payload] = [unpack(payload), NOTHING];
          if (tag === Tag.ErrorReply) throw P2PError.from(...fields);
          if (tag === Tag.ApplicationErrorReply) throw new ApplicationError(...fields, unpack(payload));
          resolve(accept({ tag, fields, payload }, id));
        } catch (error) {
          reject(error);
        }
      };
      this.attach(id, { take, lost: reject });
    });
    const cancel = () => {
      this.#receivers.get(id.toString("hex"))?.lost(signal.reason);
      this.detach(id);
      this.send(id, [Tag.Cancel]);
    };
    try {
      this.send(id, message, payload);
    } catch (error) {
      this.detach(id);
      throw error;
    }
    signal?.addEventListener("abort", cancel);
    try {
      return await answer;
    } finally {
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
    const receivers = [...this.#receivers.values()];
    this.#receivers.clear();
    for (const receiver of receivers) receiver.lost(new ConnectionLost({ what: this.#path }));
    this.#end();
  }
}

/** What a payload says; an empty one says nothing. Throws BadMessage when it is no msgpack: strangers send it. */
export function unpack(payload) {
  try {
    return payload.length ? decode(payload) : null;
  } catch (error) {
    throw new BadMessage({ reason: `a payload that is no msgpack: ${error.message}` });
  }
}
