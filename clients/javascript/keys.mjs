/** Returns the ID52 of a public key of 32 bytes: base32hex in lower case without padding. */
export function id52(key) {
  const bits = Array.from(key, (byte) => byte.toString(2).padStart(8, "0")).join("").padEnd(260, "0");
  return bits.replace(/.{5}/g, (five) => parseInt(five, 2).toString(32));
}
