/**
 * An event as the list has it, and its row.
 */
import { element } from "./dom.js";
import { categoryOf } from "./filter.js";
import { excerpt, marked } from "./text.js";

// characters of its data that a row shows
const BRIEF = 300;
// characters of an event whose text is kept for searching
const SEARCHED_AGAIN = 2000;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** @param {object} came an event as it came */
export function entryOf(came) {
  // on global a frame names the channel that the event was published to; raw, which is not copied, would take memory
  const event = { ...came, channel: came.origin ?? came.channel };
  const data = JSON.stringify(event.data) ?? "";
  return {
    event,
    agent: agentOf(event.data),
    category: categoryOf(event.event),
    size: data.length + 200,
    brief: data.slice(0, BRIEF),
    fits: false,
    // loaded by "Older"
    isOlder: false,
  };
}

/** @returns {string} all of an entry in lower case, to be searched */
export function lineOf(entry) {
  if (entry.line !== undefined) return entry.line;
  const line = JSON.stringify(entry.event).toLowerCase();
  // of a long one it would be a second copy
  if (line.length <= SEARCHED_AGAIN) entry.line = line;
  return line;
}

/** The agent that an event is about, by the names that the events of the catalogue use. */
function agentOf(data) {
  if (data === null || typeof data !== "object") return "";
  const agent = data.agent_id ?? data.from_agent_id ?? data.assigned_agent ?? data.agent;
  return typeof agent === "string" ? agent.slice(0, 128) : "";
}

/**
 * @param {object} entry
 * @param {string} needle in lower case, to be marked; may be empty
 * @returns {HTMLElement} an option of the list
 */
export function rowOf({ event, brief, category }, needle) {
  const row = element("div", undefined, /^gap$|\.(error|failed|blocked)$/.test(event.event) ? "row alarm" : "row");
  const time = element("time", clock.format(event.timestamp) + `.${String(Math.floor(event.timestamp) % 1000).padStart(3, "0")}`);
  const [name, channel, data] = [element("b"), element("span"), element("code")];
  name.append(...marked(event.event, needle));
  channel.append(...marked(event.channel, needle));
  const text = needle && !brief.toLowerCase().includes(needle) ? (JSON.stringify(event.data) ?? "") : brief;
  data.append(...marked(excerpt(text, needle, BRIEF), needle));
  row.append(time, name, channel, data);
  row.style.setProperty("--c", `var(--${category})`);
  row.setAttribute("role", "option");
  return row;
}
