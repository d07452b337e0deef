/**
 * The events: kept (so many), filtered, and shown (fewer).
 */
import { $, element, onceAFrame } from "./dom.js";

export const CATEGORIES = ["task", "subtask", "message", "agent", "session", "metric", "system", "other"];
const KEPT = 1000;
// characters of JSON, of all that is kept
const KEPT_SIZE = 16_000_000;
const ROWS = 150;
const CHOICES = 200;
const GAPS = {
  epoch: "what was published while the service restarted, or this page was away",
  expired: "what the service does not keep any more",
};
// characters of an event whose text is kept for searching
const SEARCHED_AGAIN = 2000;

/** The last events, bounded in number and in size. */
class Log {
  entries = [];
  #size = 0;

  /** @returns {object[]} the events dropped to make room */
  add(entry) {
    this.entries.push(entry);
    this.#size += entry.size;
    const gone = [];
    while (this.entries.length > KEPT || (this.#size > KEPT_SIZE && this.entries.length > 1)) {
      const oldest = this.entries.shift();
      this.#size -= oldest.size;
      gone.push(oldest);
    }
    return gone;
  }

  clear() {
    this.entries = [];
    this.#size = 0;
  }
}

/** What can be chosen in a list: the values seen last. */
class Choices {
  #select;
  #options = new Map();

  constructor(select) {
    this.#select = select;
  }

  see(value) {
    let option = this.#options.get(value);
    if (option === undefined) {
      option = new Option(value, value);
      const after = [...this.#select.options].slice(1).find((other) => other.value > value);
      this.#select.add(option, after ?? null);
    }
    this.#options.delete(value);
    this.#options.set(value, option);
    if (this.#options.size > CHOICES) this.#forget([...this.#options].find(([, other]) => !other.selected));
  }

  clear() {
    for (const choice of [...this.#options]) if (!choice[1].selected) this.#forget(choice);
  }

  #forget([value, option]) {
    this.#options.delete(value);
    option.remove();
  }
}

export function categoryOf(event) {
  const [category] = event.split(".", 1);
  return CATEGORIES.includes(category) ? category : "other";
}

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export class Stream {
  #kept = new Log();
  #fresh = [];
  #waiting = new Log();
  #channels = new Choices($("channel"));
  #agents = new Choices($("agent"));
  #paused = false;
  #filter = { categories: new Set(), channel: "", agent: "", text: "" };
  #chosen = null;
  #matching = 0;
  #shown = 0;
  #rows = $("rows");
  #paint = onceAFrame(() => this.#show());
  #events = new WeakMap();
  /** Called with the event that is chosen, or null. */
  onChoose = () => {};

  constructor() {
    this.#addFilters();
    $("pause").addEventListener("click", () => this.#pause(!this.#paused));
    $("clear").addEventListener("click", () => {
      this.#kept.clear();
      this.#waiting.clear();
      this.#channels.clear();
      this.#agents.clear();
      this.#choose(null);
      this.#again();
    });
    $("close").addEventListener("click", () => this.#leaveDetail());
    $("copy").addEventListener("click", copyDetail);
    this.#rows.addEventListener("click", (click) => this.#choose(click.target.closest(".row")));
    this.#rows.addEventListener("keydown", (key) => this.#key(key));
    document.addEventListener("keydown", (key) => {
      const typing = key.target.closest("input, textarea, select, dialog");
      if (key.key === "/" && !typing && !key.ctrlKey && !key.metaKey && !key.altKey) {
        key.preventDefault();
        $("text").focus();
      } else if (key.key === "Escape" && !$("detail").hidden && (!typing || key.target.closest("#stream"))) this.#leaveDetail();
    });
    this.#again();
  }

  /** @param {object} came an event as it came; one that came on its own channel is not given again for `global` */
  add(came) {
    // on global a frame names the channel that the event was published to; raw, which is not copied, would take memory
    const event = { ...came, channel: came.origin ?? came.channel };
    const agent = agentOf(event.data);
    const data = JSON.stringify(event.data) ?? "";
    const entry = {
      event,
      agent,
      category: categoryOf(event.event),
      size: data.length + 200,
      brief: data.slice(0, 300),
      fits: false,
    };
    this.#channels.see(event.channel);
    if (agent) this.#agents.see(agent);
    if (this.#paused) this.#waiting.add(entry);
    else this.#keep(entry);
    this.#paint();
  }

  /** Events are missing here. */
  gap(gap) {
    this.add({ event: "gap", channel: "–", data: { missing: GAPS[gap.reason] ?? gap.reason, ...gap }, timestamp: Date.now(), id: "" });
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

  #addFilters() {
    for (const category of CATEGORIES) {
      const chip = element("label", undefined, "chip");
      const box = element("input");
      const mark = element("i");
      box.type = "checkbox";
      box.value = category;
      chip.style.setProperty("--c", `var(--${category})`);
      chip.append(box, mark, category);
      $("categories").append(chip);
    }
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("input", () => {
      this.#filter = {
        categories: new Set([...$("categories").querySelectorAll("input:checked")].map((box) => box.value)),
        channel: $("channel").value,
        agent: $("agent").value,
        text: $("text").value.trim().toLowerCase(),
      };
      this.#again();
    });
  }

  #fits(entry) {
    const { categories, channel, agent, text } = this.#filter;
    return (
      (categories.size === 0 || categories.has(entry.category)) &&
      (!channel || entry.event.channel === channel) &&
      (!agent || entry.agent === agent) &&
      (!text || lineOf(entry).includes(text))
    );
  }

  #pause(paused) {
    this.#paused = paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) {
      for (const entry of this.#waiting.entries) this.#keep(entry);
      this.#waiting.clear();
    }
    this.#again();
  }

  /** Build the list again, after the filter or what is kept has changed. */
  #again() {
    for (const entry of this.#kept.entries) entry.fits = this.#fits(entry);
    const matching = this.#kept.entries.filter((entry) => entry.fits);
    this.#matching = matching.length;
    this.#fresh = [];
    const chosen = this.#chosen;
    this.#rows.removeAttribute("aria-activedescendant");
    this.#rows.replaceChildren(...matching.slice(-ROWS).reverse().map((entry) => this.#row(entry, entry === chosen)));
    this.#tell();
  }

  #show() {
    const fresh = this.#fresh;
    this.#fresh = [];
    if (fresh.length) {
      this.#rows.querySelector(".empty")?.remove();
      const before = this.#rows.scrollTop > 0;
      this.#rows.prepend(...fresh.reverse().map((entry) => this.#row(entry, false)));
      while (this.#rows.childElementCount > ROWS) this.#drop(this.#rows.lastElementChild);
      // keeps the rows in place for a user who has scrolled down
      if (before) this.#rows.scrollTop += fresh.length * this.#rows.firstElementChild.offsetHeight;
    }
    this.#tell();
  }

  #drop(row) {
    if (this.#rows.getAttribute("aria-activedescendant") === row.id) this.#rows.removeAttribute("aria-activedescendant");
    row.remove();
  }

  #tell() {
    if (!this.#rows.childElementCount) {
      const why = this.#kept.entries.length ? "No events match the filter." : "Waiting for the first event…";
      const empty = element("p", why, "empty");
      // a list box has nothing but options
      empty.setAttribute("role", "option");
      empty.setAttribute("aria-disabled", "true");
      empty.setAttribute("aria-selected", "false");
      this.#rows.append(empty);
    }
    const waiting = this.#waiting.entries.length;
    const kept = this.#kept.entries.length;
    $("pause").textContent = this.#paused ? (waiting ? `Resume (${waiting} new)` : "Resume") : "Pause";
    $("shown").textContent = this.#matching === kept ? counted(kept) : `${whole.format(this.#matching)} of ${whole.format(kept)} match`;
  }

  #row(entry, chosen) {
    const { event } = entry;
    const row = element("div", undefined, /^gap$|\.(error|failed|blocked)$/.test(event.event) ? "row alarm" : "row");
    const time = element("time", clock.format(event.timestamp) + `.${String(Math.floor(event.timestamp) % 1000).padStart(3, "0")}`);
    row.append(time, element("b", event.event), element("span", event.channel), element("code", entry.brief));
    row.style.setProperty("--c", `var(--${entry.category})`);
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(chosen));
    // the id of an element has no spaces, and the name of a channel may have some
    row.id = `row-${(this.#shown += 1)}`;
    if (chosen) this.#rows.setAttribute("aria-activedescendant", row.id);
    this.#events.set(row, entry);
    return row;
  }

  #choose(row) {
    for (const former of this.#rows.querySelectorAll('[aria-selected="true"]')) former.setAttribute("aria-selected", "false");
    const entry = row ? this.#events.get(row) : undefined;
    this.#chosen = entry ?? null;
    $("detail").hidden = entry === undefined;
    this.#rows.removeAttribute("aria-activedescendant");
    this.onChoose(entry?.event ?? null);
    if (entry === undefined) return;
    row.setAttribute("aria-selected", "true");
    this.#rows.setAttribute("aria-activedescendant", row.id);
    const { event } = entry;
    $("detail-title").textContent = event.event;
    $("detail-facts").replaceChildren();
    for (const [name, value] of [
      ["channel", event.channel],
      ["from", event.from],
      ["id", event.id],
      ["time", new Date(event.timestamp).toISOString()],
      ["agent", entry.agent],
    ]) {
      if (value) $("detail-facts").append(element("dt", name), element("dd", value));
    }
    $("detail-json").textContent = JSON.stringify(event.data, null, 2);
  }

  #leaveDetail() {
    if (!$("detail").hidden) this.#rows.focus();
    this.#choose(null);
  }

  #key(key) {
    const rows = [...this.#rows.querySelectorAll(".row")];
    const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), Home: 0, End: rows.length - 1 }[key.key];
    if (to === undefined || !rows[to]) return;
    key.preventDefault();
    this.#choose(rows[to]);
    rows[to].scrollIntoView({ block: "nearest" });
  }
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

async function copyDetail() {
  const button = $("copy");
  try {
    await navigator.clipboard.writeText($("detail-json").textContent);
    button.textContent = "Copied";
  } catch {
    // without HTTPS a page has no clipboard access, but the keyboard shortcut works
    getSelection().selectAllChildren($("detail-json"));
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

/** The agent that an event is about, by the names that the events of the catalogue use. */
export function agentOf(data) {
  if (data === null || typeof data !== "object") return "";
  const agent = data.agent_id ?? data.from_agent_id ?? data.assigned_agent ?? data.agent;
  return typeof agent === "string" ? agent.slice(0, 128) : "";
}
