/**
 * The list of events: kept (so many), filtered, and shown (fewer).
 */
import { Detail } from "./detail.js";
import { $, element, onceAFrame } from "./dom.js";
import { nothing } from "./empty.js";
import { download } from "./export.js";
import { categoryOf, testOf } from "./filter.js";
import { Filters } from "./filters.js";
import { Kept } from "./kept.js";
import { excerpt, marked } from "./marks.js";
import { Pause } from "./pause.js";

// rows that are shown at first, and added when the end is reached
const ROWS = 150;
const BRIEF = 300;
const GAPS = {
  epoch: "what was published while the service restarted, or this page was away",
  expired: "what the service does not keep any more",
};
// characters of an event whose text is kept for searching
const SEARCHED_AGAIN = 2000;

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export class Stream {
  #kept = new Kept();
  #fresh = [];
  #waiting = new Kept();
  #fits = () => true;
  #matching = 0;
  #shown = 0;
  #rows = $("rows");
  #paint = onceAFrame(() => this.#show());
  #events = new WeakMap();
  #chosen = null;
  #detail;
  #pause;
  /** The controls of the filter. */
  filters;
  /** Called with the event that is chosen, or null. */
  onChoose = () => {};

  constructor() {
    this.#detail = new Detail(() => this.#leaveDetail());
    this.#pause = new Pause(this.#rows, (paused) => this.#goOn(paused));
    this.filters = new Filters(() => this.#filter());
    $("clear").addEventListener("click", () => {
      this.#kept.clear();
      this.#waiting.clear();
      this.filters.clear();
      this.#choose(null);
      this.#again();
    });
    $("export").addEventListener("click", () => download(this.#kept.entries.filter((entry) => entry.fits).map(({ event }) => event)));
    this.#rows.addEventListener("click", (click) => this.#choose(click.target.closest(".row")));
    this.#rows.addEventListener("keydown", (key) => this.#key(key));
    this.#rows.addEventListener("scroll", () => this.#more());
    this.#filter();
  }

  /** @param {object} came an event as it came; one that came on its own channel is not given again for `global` */
  add(came) {
    const entry = entryOf(came);
    this.filters.see(entry.event.channel, entry.agent);
    if (this.#pause.on) this.#waiting.add(entry);
    else this.#keep(entry);
    this.#paint();
  }

  /** Events are missing here. */
  gap(gap) {
    this.add({ event: "gap", channel: "–", data: { missing: GAPS[gap.reason] ?? gap.reason, ...gap }, timestamp: Date.now(), id: "" });
  }

  /** @returns {number} the position in the log of the oldest event on the page; Infinity if it has none */
  get oldest() {
    return this.#kept.entries.reduce((least, { event }) => Math.min(least, event.pos ?? least), Infinity);
  }

  /** @param {object[]} events before those on the page, in the order of the log; the list is paused at them */
  addOlder(events) {
    this.#pause.press();
    const older = events.map(entryOf);
    for (const entry of older) entry.fits = this.#fits(entry);
    this.#matching += older.filter((entry) => entry.fits).length;
    this.#kept.addOlder(older);
    this.#rows.querySelector(".empty")?.remove();
    this.#tell();
    this.#rows.scrollTop = this.#rows.scrollHeight;
    this.#more();
  }

  /** Pauses or goes on, as the button does. */
  togglePause() {
    this.#pause.toggle();
  }

  /** Closes the event that is open. */
  leave() {
    if (!$("detail").hidden) this.#leaveDetail();
  }

  #keep(entry) {
    entry.fits = this.#fits(entry);
    if (entry.fits) {
      this.#matching += 1;
      this.#fresh.push(entry);
      if (this.#fresh.length > ROWS) this.#fresh.shift();
    }
    for (const gone of this.#kept.add(entry)) if (gone.fits) this.#matching -= 1;
  }

  #filter() {
    this.#fits = testOf(this.filters.value, lineOf);
    this.#again();
  }

  #goOn(paused) {
    if (!paused) {
      for (const entry of this.#waiting.entries) this.#keep(entry);
      this.#waiting.clear();
      this.#again();
    } else this.#show();
  }

  /** Build the list again, after the filter or what is kept has changed. */
  #again() {
    for (const entry of this.#kept.entries) entry.fits = this.#fits(entry);
    const matching = this.#kept.entries.filter((entry) => entry.fits);
    this.#matching = matching.length;
    this.#fresh = [];
    this.#rows.removeAttribute("aria-activedescendant");
    this.#rows.replaceChildren(...matching.slice(-ROWS).reverse().map((entry) => this.#row(entry)));
    this.#tell();
  }

  #show() {
    const fresh = this.#fresh;
    this.#fresh = [];
    if (fresh.length) {
      this.#rows.querySelector(".empty")?.remove();
      this.#rows.prepend(...fresh.reverse().map((entry) => this.#row(entry)));
      while (this.#rows.childElementCount > ROWS) this.#drop(this.#rows.lastElementChild);
    }
    this.#tell();
  }

  /** Shows older rows to a user who has scrolled to the end; the list is paused then. */
  #more() {
    const rows = this.#rows;
    if (!this.#pause.on || rows.scrollTop + rows.clientHeight < rows.scrollHeight - 200) return;
    const shown = rows.querySelectorAll(".row").length;
    const matching = this.#kept.entries.filter((entry) => entry.fits);
    if (shown >= matching.length) return;
    const older = matching.slice(Math.max(0, matching.length - shown - ROWS), matching.length - shown);
    rows.append(...older.reverse().map((entry) => this.#row(entry)));
  }

  #drop(row) {
    if (this.#rows.getAttribute("aria-activedescendant") === row.id) this.#rows.removeAttribute("aria-activedescendant");
    row.remove();
  }

  #tell() {
    const kept = this.#kept.entries.length;
    if (!this.#rows.childElementCount) this.#rows.append(nothing(kept > 0));
    this.#pause.tell(this.#waiting.entries.filter(this.#fits).length);
    $("shown").textContent = this.#matching === kept ? counted(kept) : `${whole.format(this.#matching)} of ${whole.format(kept)} match`;
  }

  #row(entry) {
    const { event } = entry;
    const needle = this.filters.value.text.trim().toLowerCase();
    const row = element("div", undefined, /^gap$|\.(error|failed|blocked)$/.test(event.event) ? "row alarm" : "row");
    const time = element("time", clock.format(event.timestamp) + `.${String(Math.floor(event.timestamp) % 1000).padStart(3, "0")}`);
    const [name, channel, data] = [element("b"), element("span"), element("code")];
    name.append(...marked(event.event, needle));
    channel.append(...marked(event.channel, needle));
    const brief = needle && !entry.brief.toLowerCase().includes(needle) ? (JSON.stringify(event.data) ?? "") : entry.brief;
    data.append(...marked(excerpt(brief, needle, BRIEF), needle));
    row.append(time, name, channel, data);
    row.style.setProperty("--c", `var(--${entry.category})`);
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(entry === this.#chosen));
    // the id of an element has no spaces, and the name of a channel may have some
    row.id = `row-${(this.#shown += 1)}`;
    if (entry === this.#chosen) this.#rows.setAttribute("aria-activedescendant", row.id);
    this.#events.set(row, entry);
    return row;
  }

  #choose(row) {
    for (const former of this.#rows.querySelectorAll('[aria-selected="true"]')) former.setAttribute("aria-selected", "false");
    const entry = (row && this.#events.get(row)) ?? null;
    this.#chosen = entry;
    this.#rows.removeAttribute("aria-activedescendant");
    this.#detail.show(entry);
    this.onChoose(entry?.event ?? null);
    if (entry === null) return;
    row.setAttribute("aria-selected", "true");
    this.#rows.setAttribute("aria-activedescendant", row.id);
  }

  #leaveDetail() {
    this.#rows.focus();
    this.#choose(null);
  }

  #key(key) {
    const by = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[key.key];
    if (by === undefined) return;
    key.preventDefault();
    this.step(by);
  }

  /** @param {number} by rows that the choice moves down */
  step(by) {
    const rows = [...this.#rows.querySelectorAll(".row")];
    const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const row = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    if (!row) return;
    this.#choose(row);
    row.scrollIntoView({ block: "nearest" });
  }
}

function entryOf(came) {
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
  };
}

function counted(events) {
  if (events === 0) return "none yet";
  return events === 1 ? "1 event" : `${whole.format(events)} events`;
}

function lineOf(entry) {
  if (entry.line !== undefined) return entry.line;
  const line = JSON.stringify(entry.event).toLowerCase();
  // of a long one it would be a second copy
  if (line.length <= SEARCHED_AGAIN) entry.line = line;
  return line;
}

/** The agent that an event is about, by the names that the events of the catalogue use. */
export function agentOf(data) {
  if (data === null || typeof data !== "object") return "";
  const agent = data.agent_id ?? data.from_agent_id ?? data.assigned_agent ?? data.agent;
  return typeof agent === "string" ? agent.slice(0, 128) : "";
}
