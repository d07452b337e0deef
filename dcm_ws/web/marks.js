/**
 * Text with what was searched for marked.
 */
import { element } from "./dom.js";

// marks in one text
const MARKS = 50;
// characters before what was found that a short line has room for
const CLOSE = 24;

/**
 * @param {string} text
 * @param {string} needle in lower case; may be empty
 * @returns {(string | HTMLElement)[]}
 */
export function marked(text, needle) {
  if (!needle) return [text];
  const lower = text.toLowerCase();
  // of some letters the other case is longer
  if (lower.length !== text.length) return [text];
  const parts = [];
  let at = 0;
  for (let found; parts.length < 2 * MARKS && (found = lower.indexOf(needle, at)) >= 0; at = found + needle.length) {
    parts.push(text.slice(at, found), element("mark", text.slice(found, found + needle.length)));
  }
  parts.push(text.slice(at));
  return parts;
}

/** The part of a long text that is worth a line: its beginning, or what is around the needle. */
export function excerpt(text, needle, length) {
  const found = needle ? text.toLowerCase().indexOf(needle) : -1;
  return found < CLOSE ? text.slice(0, length) : `…${text.slice(found - CLOSE / 2, found - CLOSE / 2 + length)}`;
}
