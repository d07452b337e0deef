/**
 * The events: kept (so many), filtered, and shown (fewer).
 */
import { $, element, onceAFrame } from "./connection.js";

export const CATEGORIES = ["task", "subtask", "message", "agent", "session", "metric", "system", "other"];
const KEPT = 1000;
const ROWS = 150;
const CHOICES = 200;

export function categoryOf(event) {
  const category = event.slice(0, event.indexOf("."));
  return CATEGORIES.includes(category) ? category : "other";
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export class Stream {
  #kept = [];
  #fresh = [];
  #waiting = [];
  #paused = false;
  #filter = { categories: new Set(), channel: "", agent: "", text: "" };
  #chosen = null;
  #matching = 0;
  #rows = $("rows");
  #paint = onceAFrame(() => this.#show());
  #events = new WeakMap();

  constructor() {
    this.#addFilters();
    $("pause").addEventListener("click", () => this.#pause(!this.#paused));
    $("clear").addEventListener("click", () => {
      this.#kept = [];
      this.#waiting = [];
      this.#choose(null);
      this.#again();
    });
    $("close").addEventListener("click", () => this.#choose(null));
    $("copy").addEventListener("click", () => navigator.clipboard?.writeText($("detail-json").textContent));
    this.#rows.addEventListener("click", (click) => this.#choose(click.target.closest(".row")));
    this.#rows.addEventListener("keydown", (key) => this.#key(key));
    document.addEventListener("keydown", (key) => {
      const typing = key.target.closest("input, textarea, select, dialog");
      if (key.key === "/" && !typing) {
        key.preventDefault();
        $("text").focus();
      } else if (key.key === "Escape" && !key.target.closest("dialog")) {
        if (!$("detail").hidden) this.#rows.focus();
        this.#choose(null);
      }
    });
    this.#again();
  }

  /** @param {object} event as it came; one that came on its own channel is not given again for `global` */
  add(event) {
    const agent = agentOf(event.data);
    const entry = { event, agent, category: categoryOf(event.event), at: Date.now(), line: undefined };
    this.#offer($("channel"), event.channel);
    if (agent) this.#offer($("agent"), agent);
    const list = this.#paused ? this.#waiting : this.#kept;
    list.push(entry);
    if (list.length > KEPT) list.shift();
    if (!this.#paused) {
      this.#fresh.push(entry);
      if (this.#fresh.length > KEPT) this.#fresh.shift();
    }
    this.#paint();
  }

  #offer(select, value) {
    if (select.options.length >= CHOICES) return;
    for (const option of select.options) if (option.value === value) return;
    select.add(new Option(value, value));
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
      (!text || (entry.line ??= JSON.stringify(entry.event).toLowerCase()).includes(text))
    );
  }

  #pause(paused) {
    this.#paused = paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) {
      this.#kept = [...this.#kept, ...this.#waiting].slice(-KEPT);
      this.#waiting = [];
    }
    this.#again();
  }

  /** Begin the list anew: the filter, or what is kept, is another. */
  #again() {
    const matching = this.#kept.filter((entry) => this.#fits(entry));
    this.#matching = matching.length;
    this.#fresh = [];
    const chosen = this.#chosen;
    this.#rows.replaceChildren(...matching.slice(-ROWS).reverse().map((entry) => this.#row(entry, entry === chosen)));
    this.#tell();
  }

  #show() {
    const fresh = this.#fresh.filter((entry) => this.#fits(entry)).slice(-ROWS);
    this.#fresh = [];
    this.#matching = Math.min(KEPT, this.#matching + fresh.length);
    if (fresh.length) {
      this.#rows.querySelector(".empty")?.remove();
      const before = this.#rows.scrollTop > 0 ? this.#rows.scrollHeight : 0;
      this.#rows.prepend(...fresh.reverse().map((entry) => this.#row(entry, false)));
      while (this.#rows.childElementCount > ROWS) this.#rows.lastElementChild.remove();
      // whoever reads further down goes on reading there
      if (before) this.#rows.scrollTop += fresh.length * this.#rows.firstElementChild.offsetHeight;
    }
    this.#tell();
  }

  #tell() {
    if (!this.#rows.childElementCount) {
      const why = this.#kept.length ? "No event fits the filter." : "Waiting for the first event…";
      this.#rows.append(element("p", why, "empty"));
    }
    $("pause").textContent = this.#paused ? (this.#waiting.length ? `Resume (${this.#waiting.length} new)` : "Resume") : "Pause";
    $("shown").textContent = this.#kept.length ? `${this.#matching} of the last ${this.#kept.length}` : "none yet";
  }

  #row(entry, chosen) {
    const { event } = entry;
    const row = element("div", undefined, /\.(error|failed|blocked)$/.test(event.event) ? "row alarm" : "row");
    const time = element("time", clock.format(event.timestamp) + `.${String(Math.floor(event.timestamp) % 1000).padStart(3, "0")}`);
    const data = JSON.stringify(event.data) ?? "";
    row.append(time, element("b", event.event), element("span", event.channel), element("code", data.slice(0, 300)));
    row.style.setProperty("--c", `var(--${entry.category})`);
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(chosen));
    row.id = `row-${event.id}-${event.channel}`;
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
    if (entry === undefined) return;
    row.setAttribute("aria-selected", "true");
    this.#rows.setAttribute("aria-activedescendant", row.id);
    const { event } = entry;
    $("detail-title").textContent = event.event;
    $("detail-facts").replaceChildren();
    for (const [name, value] of [
      ["channel", event.channel],
      ["id", event.id],
      ["time", new Date(event.timestamp).toISOString()],
      ["agent", entry.agent],
    ]) {
      if (value) $("detail-facts").append(element("dt", name), element("dd", value));
    }
    $("detail-json").textContent = JSON.stringify(event.data, null, 2);
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

/** The agent that an event is about, by the names that the events of the catalogue use. */
export function agentOf(data) {
  if (data === null || typeof data !== "object") return "";
  const agent = data.agent_id ?? data.from_agent_id ?? data.assigned_agent ?? data.agent;
  return typeof agent === "string" ? agent.slice(0, 128) : "";
}
