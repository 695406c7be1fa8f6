// Session: a bidirectional byte stream with flow control, the same for the opener and the handler.

import { Tag } from "./connection.mjs";
import { ConnectionLost, P2PError, SessionClosed, StreamReset } from "./errors.mjs";

/** Initial credit: bytes that the peer may send before this side has read any. */
export const WINDOW = 1_048_576;
const MAX_CHUNK = 262_144;
const CHUNK_COST = 64; // credit for each chunk, in addition to its bytes
export const RESET_CLOSED = 2 ** 32;
export const RESET_FAILED = 2 ** 32 + 1;
const RESET_LOST = 2 ** 32 + 2;
const NO_KEY = new Uint8Array(0);

/**
 * `for await (const chunk of session)` reads until the peer has ended its direction. It throws StreamReset or
 * ConnectionLost if that ended early. `write` and `end` are for this side's direction.
 */
export class Session {
  #connection;
  #id;
  #credit; // bytes that may be sent
  #consumed = 0; // bytes that were read and not yet granted again
  #chunks = []; // received and not yet read
  #incoming = { ended: false, error: undefined };
  #outgoing = { ended: false, error: undefined, eof: false };
  #changed = new Signal();
  #accepted;

  /** `peer` is the peer's ID52, `petname` its name in the address book or "", `path` how it is connected, `requestId` the session's name. */
  constructor(connection, id, { credit, peer, petname, path = "", requestId = "", accepted = true }) {
    this.#connection = connection;
    this.#id = id;
    this.#credit = credit;
    this.peer = peer;
    this.petname = petname;
    this.path = path;
    this.requestId = requestId;
    this.#accepted = accepted;
    connection.attach(id, this);
  }

  /** Accepts the session, in a handler: the opener may then use it. */
  accept() {
    if (this.#accepted) return;
    this.#accepted = true;
    this.#send([Tag.SessionOpened, WINDOW, NO_KEY, ""]);
  }

  /** Ends a session that was not accepted yet, and returns true; otherwise returns false. */
  reject(error) {
    if (this.#accepted) return false;
    this.#accepted = true;
    this.onLost(error);
    return true;
  }

  // ── this side's direction ───────────────────────────────────────────────────────────────────

  /** Sends bytes. Do not change them afterwards. Resolves when there was credit for all of them. */
  async write(bytes) {
    this.accept();
    for (let at = 0; at < bytes.length; ) {
      await this.#until(() => this.#outgoing.ended || this.#credit > CHUNK_COST);
      this.#checkOutgoing();
      const size = Math.min(bytes.length - at, MAX_CHUNK, this.#credit - CHUNK_COST);
      this.#credit -= size + CHUNK_COST;
      this.#send([Tag.SessionData], bytes.subarray(at, at + size));
      at += size;
    }
  }

  /** Ends this direction. Resolves when the end was forwarded. */
  async end() {
    this.accept();
    this.#checkOutgoing();
    this.#outgoing.eof = true;
    this.#send([Tag.EndOfStream]);
    await this.#until(() => this.#outgoing.ended);
    if (this.#outgoing.error) throw this.#outgoing.error;
  }

  /** Resets this direction: the peer gets StreamReset with this code. */
  reset(code) {
    if (this.#outgoing.ended) return;
    this.accept();
    this.#send([Tag.ResetStream, code]);
    this.#end(this.#outgoing, new SessionClosed({ what: "this direction was reset" }));
  }

  // ── the peer's direction ─────────────────────────────────────────────────────────────────────

  async *[Symbol.asyncIterator]() {
    this.accept();
    try {
      for (;;) {
        await this.#until(() => this.#chunks.length || this.#incoming.ended);
        const chunk = this.#chunks.shift();
        if (!chunk) break;
        yield chunk;
        this.#consume(chunk.length + CHUNK_COST);
      }
      if (this.#incoming.error) throw this.#incoming.error;
    } finally {
      this.stop(RESET_CLOSED); // does nothing if everything was read
    }
  }

  /** Stops reading and tells the peer to stop sending. */
  stop(code) {
    if (this.#incoming.ended || this.#incoming.stopped) return;
    this.#incoming.stopped = true;
    this.#chunks = [];
    this.#send([Tag.StopSending, code]);
  }

  /** Closes the session. With `code` it resets this direction, otherwise it ends it. */
  async close(code) {
    if (code !== undefined) this.reset(code);
    this.stop(code ?? RESET_CLOSED);
    if (!this.#outgoing.ended && !this.#outgoing.eof) await this.end();
    await this.#until(() => this.#incoming.ended && this.#outgoing.ended);
  }

  // ── messages ────────────────────────────────────────────────────────────────────────────────

  /** Called by the connection for each message with this session's id. */
  onMessage(tag, fields, payload) {
    const incoming = this.#incoming;
    if (tag === Tag.SessionData && !incoming.ended && !incoming.stopped) {
      this.#chunks.push(payload);
      this.#changed.notify();
    } else if (tag === Tag.EndOfStream) {
      this.#send([Tag.Ack]);
      this.#end(incoming);
    } else if (tag === Tag.ResetStream) {
      this.#end(incoming, resetError(...fields));
    } else if (tag === Tag.WindowUpdate) {
      this.#credit += fields[0];
      this.#changed.notify();
    } else if (tag === Tag.Ack) {
      this.#end(this.#outgoing);
    } else if (tag === Tag.StopSending && !this.#outgoing.ended) {
      this.#send([Tag.ResetStream, ...fields]);
      this.#end(this.#outgoing, resetError(...fields));
    } else if (tag === Tag.ErrorReply) {
      this.onLost(P2PError.from(...fields));
    } else if (tag === Tag.Cancel) {
      this.onLost(new ConnectionLost({ what: "the program that opened the session" }));
    }
  }

  /** Called by the connection when it has ended. Ends both directions. */
  onLost(error) {
    this.#end(this.#incoming, error);
    this.#end(this.#outgoing, error);
  }

  #consume(size) {
    this.#consumed += size;
    if (this.#consumed < WINDOW / 2 || this.#incoming.ended || this.#incoming.stopped) return;
    this.#send([Tag.WindowUpdate, this.#consumed]);
    this.#consumed = 0;
  }

  #end(direction, error) {
    if (direction.ended) return;
    direction.ended = true;
    direction.error = error;
    if (this.#incoming.ended && this.#outgoing.ended) this.#connection.detach(this.#id);
    this.#changed.notify();
  }

  #checkOutgoing() {
    if (this.#outgoing.error) throw this.#outgoing.error;
    if (this.#outgoing.ended || this.#outgoing.eof) throw new SessionClosed({ what: "this direction is complete" });
  }

  #send(message, payload) {
    this.#connection.send(this.#id, message, payload);
  }

  async #until(condition) {
    while (!condition()) await this.#changed.next();
  }
}

/** Wakes all waiters at each change. */
class Signal {
  #waiting = [];

  next() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  notify() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function resetError(code) {
  if (code === RESET_LOST) return new ConnectionLost({ what: "the peer's end of the session" });
  return new StreamReset({ reset_code: code });
}
