// The attempts of a call that is sent again: which errors are worth another one, and when it comes.

import { randomBytes } from "node:crypto";
import { uptime } from "node:os";

import { ConnectionLost, DeadlineExceeded, P2PError } from "./errors.mjs";

const CALL_ID_BYTES = 16;
const PAUSE = { first: 20, longest: 500 }; // ms between two attempts
const MIN_TIME_LEFT = 50; // ms that an attempt needs; with less left, the last error says more than a timeout

/** Codes of errors that pass by themselves, beside those that are retryable. */
const PASSING = new Set([
  "connection-lost", "delegation-expired", "delegation-not-yet-valid", "identity-offline", "instance-not-found",
  "no-identity-online", "protocol-not-found", "stream-reset",
]);

/** Codes of errors that end an attempt before any handler got it. After any other, the call may have been executed. */
const NOT_EXECUTED = new Set([
  "command-not-found", "daemon-not-running", "delegation-expired", "delegation-not-yet-valid", "denied",
  "home-away", "identity-offline", "instance-not-found", "no-identity-online", "peer-offline", "peer-unknown",
  "peer-unreachable", "protocol-not-found",
]);

export class CallRetry {
  /** The idempotency key: the same random bytes in all attempts. */
  callId = randomBytes(CALL_ID_BYTES);
  /** Attempts before this one that may have been executed. */
  attempt = 0;
  #begun = 0;
  #sent = 0;
  #pause = PAUSE.first;
  #lost = false;
  #timeout;

  /** `timeout` is what DeadlineExceeded names, in seconds. */
  constructor(timeout) {
    this.#timeout = timeout;
  }

  /** Notes that an attempt begins. Returns when the first of those before it began that `attempt` counts, in ms since boot. */
  begin() {
    if (!this.attempt) this.#begun = Math.floor(uptime() * 1000);
    return this.#sent;
  }

  /**
   * Returns the ms until the next attempt. Throws `error` if none can help, or if there is no time for one; instead of
   * that DeadlineExceeded if an attempt was lost. `left` is the remaining time in ms, `sent` whether this one was sent.
   */
  pauseAfter(error, left, sent) {
    const isLost = error instanceof ConnectionLost && sent;
    this.#lost ||= isLost;
    const helps = error instanceof P2PError && (error.retryable || PASSING.has(error.code));
    if (!helps || error instanceof DeadlineExceeded) throw error;
    if (sent && !NOT_EXECUTED.has(error.code)) {
      this.attempt += 1;
      this.#sent = this.#begun;
    }
    const pause = this.#pause * (1 - Math.random() / 2); // so that clients that failed together do not retry together
    this.#pause = Math.min(2 * this.#pause, PAUSE.longest);
    if (pause + MIN_TIME_LEFT >= left) throw this.#lost ? new DeadlineExceeded({ seconds: this.#timeout }) : error;
    return pause;
  }
}
