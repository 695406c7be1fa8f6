// A session: a stream of bytes each way. Both sides of it are alike once it stands.

import { Tag } from "./connection.mjs";
import { ConnectionLost, P2PError, SessionClosed, StreamReset } from "./errors.mjs";

/** Bytes of one direction that are taken before they are consumed: the credit that is granted at first. */
export const WINDOW = 1_048_576;
const MAX_CHUNK = 262_144;
const CHUNK_COST = 64; // of the credit, beside the bytes
export const RESET_CLOSED = 2 ** 32;
export const RESET_FAILED = 2 ** 32 + 1;
const RESET_LOST = 2 ** 32 + 2;

/**
 * `for await (const chunk of session)` reads until the other side has ended its direction, and throws StreamReset or
 * ConnectionLost when it did so early. `write` and `end` are this side's direction.
 */
export class Session {
  #connection;
  #id;
  #credit; // what may be sent
  #consumed = 0; // what has been read and not been granted again
  #chunks = []; // what has come and not been read
  #incoming = { over: false, error: undefined };
  #outgoing = { over: false, error: undefined, eof: false };
  #changed = new Signal();

  /** `peer` is the other side's ID52, `petname` its name in the address book or "". */
  constructor(connection, id, { credit, peer, petname }) {
    this.#connection = connection;
    this.#id = id;
    this.#credit = credit;
    this.peer = peer;
    this.petname = petname;
    connection.attach(id, this);
  }

  // ── this side's direction ───────────────────────────────────────────────────────────────────

  /** Sends bytes, which must not be changed afterwards; returns when there was room for all of them. */
  async write(bytes) {
    for (let at = 0; at < bytes.length; ) {
      await this.#until(() => this.#outgoing.over || this.#credit > CHUNK_COST);
      this.#checkOutgoing();
      const size = Math.min(bytes.length - at, MAX_CHUNK, this.#credit - CHUNK_COST);
      this.#credit -= size + CHUNK_COST;
      this.#say([Tag.SessionData], bytes.subarray(at, at + size));
      at += size;
    }
  }

  /** Says that this direction is complete; returns when that has been passed on. */
  async end() {
    this.#checkOutgoing();
    this.#outgoing.eof = true;
    this.#say([Tag.EndOfStream]);
    await this.#until(() => this.#outgoing.over);
    if (this.#outgoing.error) throw this.#outgoing.error;
  }

  /** Ends this direction early: the other side sees StreamReset with that code. */
  reset(code) {
    if (this.#outgoing.over) return;
    this.#say([Tag.ResetStream, code]);
    this.#end(this.#outgoing, new SessionClosed({ what: "this direction has been reset" }));
  }

  // ── the other side's ────────────────────────────────────────────────────────────────────────

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        await this.#until(() => this.#chunks.length || this.#incoming.over);
        const chunk = this.#chunks.shift();
        if (!chunk) break;
        yield chunk;
        this.#consume(chunk.length + CHUNK_COST);
      }
      if (this.#incoming.error) throw this.#incoming.error;
    } finally {
      this.stop(RESET_CLOSED); // unless all has been read
    }
  }

  /** Reads no more: the other side is told to stop. */
  stop(code) {
    if (this.#incoming.over || this.#incoming.stopped) return;
    this.#incoming.stopped = true;
    this.#chunks = [];
    this.#say([Tag.StopSending, code]);
  }

  /** Ends what has not ended: with `code` early, without one by `end`. */
  async close(code) {
    if (code !== undefined) this.reset(code);
    this.stop(code ?? RESET_CLOSED);
    if (!this.#outgoing.over && !this.#outgoing.eof) await this.end();
    await this.#until(() => this.#incoming.over && this.#outgoing.over);
  }

  // ── what comes ──────────────────────────────────────────────────────────────────────────────

  /** Called by the connection with what comes under this session's id. */
  take(tag, fields, payload) {
    const incoming = this.#incoming;
    if (tag === Tag.SessionData && !incoming.over && !incoming.stopped) {
      this.#chunks.push(payload);
      this.#changed.notify();
    } else if (tag === Tag.EndOfStream) {
      this.#say([Tag.Ack]);
      this.#end(incoming);
    } else if (tag === Tag.ResetStream) {
      this.#end(incoming, resetError(...fields));
    } else if (tag === Tag.WindowUpdate) {
      this.#credit += fields[0];
      this.#changed.notify();
    } else if (tag === Tag.Ack) {
      this.#end(this.#outgoing);
    } else if (tag === Tag.StopSending && !this.#outgoing.over) {
      this.#say([Tag.ResetStream, ...fields]);
      this.#end(this.#outgoing, resetError(...fields));
    } else if (tag === Tag.ErrorReply) {
      this.lost(P2PError.from(...fields));
    } else if (tag === Tag.Cancel) {
      this.lost(new ConnectionLost({ what: "whoever opened the session" }));
    }
  }

  /** Both directions end here, unless they were complete. */
  lost(error) {
    this.#end(this.#incoming, error);
    this.#end(this.#outgoing, error);
  }

  #consume(size) {
    this.#consumed += size;
    if (this.#consumed < WINDOW / 2 || this.#incoming.over || this.#incoming.stopped) return;
    this.#say([Tag.WindowUpdate, this.#consumed]);
    this.#consumed = 0;
  }

  #end(direction, error) {
    if (direction.over) return;
    direction.over = true;
    direction.error = error;
    if (this.#incoming.over && this.#outgoing.over) this.#connection.detach(this.#id);
    this.#changed.notify();
  }

  #checkOutgoing() {
    if (this.#outgoing.error) throw this.#outgoing.error;
    if (this.#outgoing.over || this.#outgoing.eof) throw new SessionClosed({ what: "this direction is complete" });
  }

  #say(message, payload) {
    this.#connection.send(this.#id, message, payload);
  }

  async #until(condition) {
    while (!condition()) await this.#changed.next();
  }
}

/** Wakes all who wait for the next change. */
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
  if (code === RESET_LOST) return new ConnectionLost({ what: "the other side of the session" });
  return new StreamReset({ reset_code: code });
}
