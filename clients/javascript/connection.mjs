// A connection to one socket of the daemon: frames, correlation ids, requests and replies.

import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

import { ApplicationError, ConnectionLost, P2PError, PayloadTooLarge } from "./errors.mjs";
import { unpack } from "./payload.mjs";

/** Tags of the messages that these modules use. */
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
 * A connection that ends once. All requests in flight end with it. The ZeroMQ socket does not reconnect; open another
 * Connection instead.
 */
export class Connection {
  #path;
  #socket;
  #ids = 0n;
  #receivers = new Map(); // id in hexadecimal → receiver of its messages and of the connection's loss
  #sending = Promise.resolve(); // the socket accepts one message at a time
  #end;

  /** Resolves when the connection has ended. */
  ended = new Promise((resolve) => (this.#end = resolve));

  /** Called with `(id, tag, fields, payload)` for messages with an id that has no receiver. */
  onRequest = () => {};

  /** Connects. Rejects with ConnectionLost if no process listens, or if there is no ZMTP greeting. */
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
        // Let the reading loop process messages that arrived before the end.
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
        // A ZeroMQ message contains one or more messages of three frames.
        for (let first = 0; first + 3 <= frames.length; first += 3) {
          this.#onMessage(...frames.slice(first, first + 3));
        }
      }
    } finally {
      this.close();
    }
  }

  #onMessage(id, header, payload) {
    const [tag, ...fields] = decode(header);
    const receiver = this.#receivers.get(id.toString("hex"));
    if (receiver) receiver.onMessage(tag, fields, payload);
    else this.onRequest(id, tag, fields, payload);
  }

  /** Whether the connection has ended: nothing can be sent any more. */
  get closed() {
    return this.#socket.closed;
  }

  /** Calls `receiver.onMessage(tag, fields, payload)` for messages with this id, and `receiver.onLost(error)`. */
  attach(id, receiver) {
    if (this.#socket.closed) throw new ConnectionLost({ what: this.#path });
    this.#receivers.set(id.toString("hex"), receiver);
  }

  /** Drops later messages with this id. */
  detach(id) {
    this.#receivers.delete(id.toString("hex"));
  }

  newId() {
    const id = Buffer.alloc(8);
    id.writeBigUInt64BE(++this.#ids);
    return id;
  }

  /** Sends one message without waiting for a reply. Throws PayloadTooLarge. */
  send(id, message, payload = NOTHING) {
    if (payload.length > MAX_PAYLOAD) throw new PayloadTooLarge({ size: payload.length, limit: MAX_PAYLOAD });
    const frames = [id, encode(message), payload];
    // This fails only if the connection has ended, and then all receivers are notified.
    this.#sending = this.#sending.then(() => this.#socket.send(frames)).catch(() => {});
  }

  /**
   * Sends a request. Returns the result of `accept(reply, id)`, by default the reply, `{tag, fields, payload}`.
   * Rejects if the reply is an error. If `signal` aborts, the request is cancelled.
   */
  async request(message, { payload = NOTHING, signal, accept = (reply) => reply } = {}) {
    signal?.throwIfAborted();
    const id = this.newId();
    const reply = new Promise((resolve, reject) => {
      const onMessage = (tag, fields, payload) => {
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
      this.attach(id, { onMessage, onLost: reject });
    });
    const cancel = () => {
      this.#receivers.get(id.toString("hex"))?.onLost(signal.reason);
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
      return await reply;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Closes the connection after the last message was sent. */
  async finish() {
    await this.#sending;
    if (!this.#socket.closed) this.#socket.linger = LINGER_MS;
    this.close();
  }

  /** Closes the connection. Requests in flight reject with ConnectionLost. */
  close() {
    if (!this.#socket.closed) this.#socket.close();
    const receivers = [...this.#receivers.values()];
    this.#receivers.clear();
    for (const receiver of receivers) receiver.onLost(new ConnectionLost({ what: this.#path }));
    this.#end();
  }
}
