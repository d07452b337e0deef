/**
 * Text and JSON in which what was searched for is marked, and long inner values are folded.
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

// what has at most so many characters is shown unfolded
const SHORT = 160;
// entries of one object or array
const ENTRIES = 500;

/**
 * @param {unknown} value
 * @param {string} needle in lower case, to be marked
 * @param {number} depth levels around it
 * @returns {(string | HTMLElement)[]} nodes for a `pre`; together they are the value in JSON, as far as it is unfolded
 */
export function folded(value, needle, depth = 0) {
  if (value === null || typeof value !== "object") return marked(JSON.stringify(value) ?? "null", needle);
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const all = isList ? value.map((item) => ["", item]) : Object.entries(value).map(([key, item]) => [`${JSON.stringify(key)}: `, item]);
  if (all.length === 0) return [open + close];
  const pad = "  ".repeat(depth + 1);
  const body = () => {
    const nodes = [`${open}\n`];
    all.slice(0, ENTRIES).forEach(([key, item], index) => {
      nodes.push(pad, ...marked(key, needle), ...folded(item, needle, depth + 1), index < all.length - 1 ? ",\n" : "\n");
    });
    if (all.length > ENTRIES) nodes.push(`${pad}… ${all.length - ENTRIES} more\n`);
    nodes.push(`${"  ".repeat(depth)}${close}`);
    return nodes;
  };
  if (depth === 0) return body();
  return [fold(isList ? `[…] ${all.length}` : `{…} ${all.length}`, body, isShort(value))];
}

/** What is folded is made when it is opened: most of a large event never is. */
function fold(title, body, open) {
  const details = element("details");
  const inner = element("span");
  const summary = element("summary");
  summary.append(element("span", title));
  // the title is not shown while it is open
  summary.setAttribute("aria-label", title);
  details.append(summary, inner);
  const fill = () => inner.firstChild ?? inner.append(...body());
  details.addEventListener("toggle", () => details.open && fill());
  details.open = open;
  if (open) fill();
  return details;
}

function isShort(value) {
  // of a large one not all is written
  const items = Array.isArray(value) ? value.length : Object.keys(value).length;
  return items <= SHORT && JSON.stringify(value).length <= SHORT;
}
