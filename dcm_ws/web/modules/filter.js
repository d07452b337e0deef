/**
 * Which events are shown: by event, channel, agent and text.  The filter is in the page's address, and remembered.
 */
export const CATEGORIES = ["task", "subtask", "message", "agent", "session", "metric", "system", "other"];
/** The snapshots are shown as figures, so the list leaves them out at first. */
export const AT_FIRST = { event: "-metric.update", channel: "", agent: "", text: "" };
const KEY = "dcm-ws.filter";
// characters of each part of a filter
const LENGTH = 300;
// browsers refuse to change the address very often
const REMEMBER_MS = 300;

export function categoryOf(event) {
  const [category] = event.split(".", 1);
  return CATEGORIES.includes(category) ? category : "other";
}

/** Does a name match a pattern, in which `*` stands for any characters? */
export function matches(pattern, name) {
  const [first, ...parts] = pattern.split("*");
  if (parts.length === 0) return name === pattern;
  const last = parts.pop();
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last)) return false;
  const middle = name.slice(first.length, name.length - last.length);
  let at = 0;
  for (const part of parts) {
    const found = middle.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return true;
}

/** The patterns in what was typed, such as `task.* -task.updated`. */
export function patternsOf(text) {
  return text.split(/[\s,]+/).filter((pattern) => pattern && pattern !== "-");
}

/** What was typed, with a category switched on or off. */
export function toggled(text, category, on) {
  const all = `${category}.*`;
  const rest = patternsOf(text).filter((pattern) => pattern !== all && !(on && pattern.startsWith(`-${category}.`)));
  if (on) rest.push(all);
  else if (category === "metric") rest.unshift(AT_FIRST.event);
  return rest.join(" ");
}

/** @returns {typeof AT_FIRST} what the address says, or what was used last */
export function recall() {
  const address = new URLSearchParams(location.search);
  let known = {};
  if (Object.keys(AT_FIRST).some((name) => address.has(name))) known = Object.fromEntries(address);
  else {
    try {
      known = JSON.parse(localStorage.getItem(KEY)) ?? {};
    } catch {
      // no storage, or not ours
    }
  }
  const part = ([name, otherwise]) => [name, typeof known[name] === "string" ? known[name].slice(0, LENGTH) : otherwise];
  return Object.fromEntries(Object.entries(AT_FIRST).map(part));
}

let soon;

/** Writes a filter to the page's address and to the storage, a moment later. */
export function remember(filter) {
  clearTimeout(soon);
  soon = setTimeout(() => {
    const address = new URL(location.href);
    for (const [name, otherwise] of Object.entries(AT_FIRST)) {
      if (filter[name] === otherwise) address.searchParams.delete(name);
      else address.searchParams.set(name, filter[name]);
    }
    history.replaceState(null, "", address);
    try {
      localStorage.setItem(KEY, JSON.stringify(filter));
    } catch {
      // the page works without
    }
  }, REMEMBER_MS);
}

/**
 * Makes the test of an entry.
 *
 * @param {typeof AT_FIRST} filter
 * @param {(entry: object) => string} lineOf an entry in lower case
 */
export function testOf({ event, channel, agent, text }, lineOf) {
  const patterns = patternsOf(event.toLowerCase());
  const not = patterns.filter((pattern) => pattern.startsWith("-")).map((pattern) => pattern.slice(1));
  const any = patterns.filter((pattern) => !pattern.startsWith("-"));
  const needle = text.trim().toLowerCase();
  return (entry) => {
    const name = entry.event.event.toLowerCase();
    // a gap concerns all events
    if (name === "gap") return true;
    const has = (pattern) => matches(pattern, name) || pattern === `${entry.category}.*`;
    return (
      (any.length === 0 || any.some(has)) &&
      !not.some(has) &&
      (!channel || entry.event.channel === channel) &&
      (!agent || entry.agent === agent || entry.event.from === agent || entry.event.channel === `agents/${agent}`) &&
      (!needle || lineOf(entry).includes(needle))
    );
  };
}
