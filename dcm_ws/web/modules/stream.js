/**
 * The list of events: kept (so many), filtered, and shown (fewer).
 */
import { download } from "./clipboard.js";
import { Detail } from "./detail.js";
import { $, onceAFrame, whole } from "./dom.js";
import { Empty } from "./empty.js";
import { entryOf, lineOf, rowOf } from "./entries.js";
import { testOf } from "./filter.js";
import { Filters } from "./filters.js";
import { Kept } from "./kept.js";
import { Pause } from "./pause.js";

// rows that are shown at first, and added when the end is reached
const ROWS = 150;
const GAPS = {
  epoch: "what was published while the service restarted, or this page was away",
  expired: "what the service does not keep any more",
};

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
  #empty;
  #detail;
  #pause;
  /** The controls of the filter. */
  filters;
  /** Called with the event that is chosen, or null. */
  onChoose = () => {};
  #onFilter = () => {};

  constructor() {
    this.#detail = new Detail(() => this.#leaveDetail(), (parts) => this.filters.set(parts));
    this.#pause = new Pause(this.#rows, (paused) => this.#goOn(paused));
    this.filters = new Filters(() => this.#filter());
    this.#empty = new Empty($("empty"), () => $("reset").click());
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

  /** @param {(filter: object) => void} watcher called with the filter, now and whenever it changes */
  onFilter(watcher) {
    this.#onFilter = watcher;
    watcher(this.filters.value);
  }

  /** Events are missing here. */
  gap(gap) {
    this.add({ event: "gap", channel: "–", data: { missing: GAPS[gap.reason] ?? gap.reason, ...gap }, timestamp: Date.now(), id: "" });
  }

  /** @returns {number} the position in the log before which events of a channel are not on the page */
  before(channel) {
    return this.#kept.before(channel);
  }

  /** @returns {boolean} is there room for older events? */
  get hasRoom() {
    return this.#kept.hasRoom;
  }

  /**
   * Shows older events, and pauses the list at them.
   *
   * @param {object[]} events in the order of the log
   * @param {string} channel
   * @param {number} from the position from which on they are all of the channel
   * @returns {number} how many were not on the page
   */
  addOlder(events, channel, from) {
    this.#pause.press();
    const shown = this.#rows.childElementCount;
    const waiting = new Set(this.#waiting.entries.map(({ event }) => event.id));
    const older = events.filter(({ id }) => !waiting.has(id));
    const added = this.#kept.addOlder(older.map(entryOf), channel, from);
    for (const { event, agent } of added) this.filters.see(event.channel, agent);
    this.#again(Math.max(ROWS, shown));
    this.#rows.scrollTop = this.#rows.scrollHeight;
    this.#more();
    return added.length;
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
    this.#onFilter(this.filters.value);
  }

  #goOn(paused) {
    if (!paused) {
      for (const entry of this.#waiting.entries) this.#keep(entry);
      this.#waiting.clear();
      this.#again();
    } else this.#show();
  }

  /** Build the list again, after the filter or what is kept has changed. */
  #again(rows = ROWS) {
    for (const entry of this.#kept.entries) entry.fits = this.#fits(entry);
    const matching = this.#kept.entries.filter((entry) => entry.fits);
    this.#matching = matching.length;
    this.#fresh = [];
    this.#rows.removeAttribute("aria-activedescendant");
    this.#rows.replaceChildren(...matching.slice(-rows).reverse().map((entry) => this.#row(entry)));
    this.#tell();
  }

  #show() {
    const fresh = this.#fresh;
    this.#fresh = [];
    if (fresh.length) {
      this.#rows.prepend(...fresh.reverse().map((entry) => this.#row(entry)));
      while (this.#rows.childElementCount > ROWS) this.#drop(this.#rows.lastElementChild);
    }
    this.#tell();
  }

  /** Shows older rows to a user who has scrolled to the end; the list is paused then. */
  #more() {
    const rows = this.#rows;
    if (!this.#pause.on || rows.scrollTop + rows.clientHeight < rows.scrollHeight - 200) return;
    const shown = rows.childElementCount;
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
    this.#empty.show(!this.#rows.childElementCount, kept > 0);
    this.#pause.tell(this.#waiting.entries.filter(this.#fits).length);
    $("shown").textContent = this.#matching === kept ? counted(kept) : `${whole.format(this.#matching)} of ${whole.format(kept)} match`;
  }

  #row(entry) {
    const row = rowOf(entry, this.filters.value.text.trim().toLowerCase());
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
    const rows = [...this.#rows.children];
    const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const row = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    if (!row) return;
    this.#choose(row);
    row.scrollIntoView({ block: "nearest" });
  }
}

function counted(events) {
  if (events === 0) return "none yet";
  return events === 1 ? "1 event" : `${whole.format(events)} events`;
}
