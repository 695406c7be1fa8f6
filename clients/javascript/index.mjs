// Everything that a program uses.

export { Client } from "./client.mjs";
export * from "./errors.mjs";
export { serve } from "./server.mjs";
export { RESET_CLOSED, RESET_FAILED, Session } from "./session.mjs";
