// Requests, replies and other payloads: msgpack, with all integers of 64 bits.

import { decode, encode } from "@msgpack/msgpack";

import { BadMessage } from "./errors.mjs";

const OPTIONS = { useBigInt64: true };

/** Encodes a value. An integer that no Number holds exactly is given as a BigInt. Throws if a value does not fit. */
export function pack(value) {
  return encode(mapped(value, toWire), OPTIONS);
}

/** Decodes a payload; an empty one is null. Integers that no Number holds exactly become BigInts. Throws BadMessage. */
export function unpack(payload) {
  if (!payload.length) return null;
  try {
    return mapped(decode(payload, OPTIONS), fromWire);
  } catch (error) {
    throw new BadMessage({ reason: `the payload is not msgpack: ${error.message}` });
  }
}

/** With `useBigInt64` the package writes large Numbers as floats. */
function toWire(value) {
  if (Number.isSafeInteger(value) && (value >= 2 ** 32 || value < -(2 ** 31))) return BigInt(value);
  if (typeof value === "bigint" && (value >= 2n ** 64n || value < -(2n ** 63n))) throw new RangeError(`${value}`);
  return value;
}

function fromWire(value) {
  return typeof value === "bigint" && Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** Returns a copy of arrays and plain objects with each value in them replaced. */
function mapped(value, replace) {
  if (Array.isArray(value)) return value.map((each) => mapped(each, replace));
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return replace(value);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, mapped(each, replace)]));
}
