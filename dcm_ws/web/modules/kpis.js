/**
 * The key figures: a card each, with the course of the last minutes.
 */
import { element } from "./dom.js";

const CARDS = [
  ["active_sessions", "Active sessions"],
  ["active_agents", "Active agents"],
  ["running_tasks", "Running tasks"],
  ["pending_tasks", "Pending tasks"],
  ["completed_tasks_last_hour", "Done in 1 hour"],
  ["messages_last_hour", "Messages, 1 hour"],
  ["actions_per_minute", "Actions/minute"],
  ["avg_task_duration_ms", "Mean task time"],
];
// ten minutes, at a snapshot each five seconds
const KEPT = 120;
// the least share of a figure that its line shows from bottom to top
const STEADY = 0.1;
// characters of a figure, at least, for its size on the wall, where all have the same; those of a unit are smaller
const SHORTEST = 4;
const UNIT = 0.4;
// the figures are old after so many intervals without a snapshot
const MISSED = 3;
const INTERVAL_MS = 5000;
const SVG = "http://www.w3.org/2000/svg";

export class Kpis {
  #cards = new Map();
  #parent;
  #asOf = element("p", undefined, "as-of");
  #at = null;
  #interval = INTERVAL_MS;

  constructor(parent) {
    this.#parent = parent;
    for (const [name, title] of CARDS) {
      const card = element("article", undefined, "kpi");
      const value = element("p", "–");
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", "0 0 100 30");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      const area = document.createElementNS(SVG, "polygon");
      const line = document.createElementNS(SVG, "polyline");
      svg.append(area, line);
      card.append(element("h2", title), value, svg);
      card.dataset.kpi = name;
      parent.append(card);
      this.#cards.set(name, { value, area, line, course: [] });
    }
    this.#asOf.hidden = true;
    parent.append(this.#asOf);
    setInterval(() => this.#look(), 1000);
  }

  /** @returns {boolean} has there been a snapshot? */
  get known() {
    return this.#at !== null;
  }

  /** Marks figures that nobody has renewed, as when the database is away and the connection is not. */
  #look() {
    const old = this.#at !== null && Date.now() - this.#at > MISSED * this.#interval;
    this.#parent.toggleAttribute("data-old", old);
    this.#asOf.hidden = !old;
    if (old) this.#asOf.textContent = `Key figures as of ${clock.format(this.#at)}`;
  }

  /** @param {Record<string, unknown>} snapshot the data of a `metric.update` */
  show(snapshot) {
    const now = Date.now();
    if (this.#at !== null) this.#interval = Math.max(INTERVAL_MS, now - this.#at);
    this.#at = now;
    this.#look();
    for (const [name, card] of this.#cards) {
      const figure = snapshot?.[name];
      if (figure === undefined) continue;
      if (!Number.isFinite(figure)) {
        // unknown now, even if it was known before
        card.value.replaceChildren("–");
        continue;
      }
      const [text, unit] = name.endsWith("_ms") ? duration(figure) : [number(figure), ""];
      card.value.replaceChildren(text);
      if (unit) card.value.append(element("small", unit));
      card.course.push(figure);
      if (card.course.length > KEPT) card.course.shift();
      draw(card);
    }
    this.#fit();
  }

  /** Says how long the longest figure is: they are as large as it allows. */
  #fit() {
    const lengths = [...this.#cards.values()].map(({ value }) => {
      const unit = value.querySelector("small")?.textContent.length ?? 0;
      return value.textContent.length - unit + UNIT * unit;
    });
    this.#parent.style.setProperty("--longest", Math.max(SHORTEST, ...lengths).toFixed(1));
  }
}

function draw({ course: figures, line, area }) {
  // as shares of the largest: the difference of two very large numbers is not finite
  const largest = Math.max(...figures.map(Math.abs));
  const course = figures.map((figure) => (largest ? figure / largest : 0));
  const [least, most] = [Math.min(...course), Math.max(...course)];
  // small variations must not look large
  const span = Math.max(most - least, STEADY * Math.abs(most));
  const base = (least + most - span) / 2;
  const step = 100 / Math.max(1, course.length - 1);
  // what does not change is a line in the middle
  const height = (figure) => (span ? 26 - (22 * (figure - base)) / span : 15);
  const points = course.map((figure, index) => `${(index * step).toFixed(2)},${height(figure).toFixed(2)}`);
  if (points.length === 1) points.push(`100,${points[0].split(",")[1]}`);
  line.setAttribute("points", points.join(" "));
  area.setAttribute("points", `0,30 ${points.join(" ")} 100,30`);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function number(figure) {
  if (Math.abs(figure) >= 1e15) return figure.toExponential(0).replace("+", "");
  if (Math.abs(figure) >= 100_000) return compact.format(figure);
  return (Math.abs(figure) < 100 ? fine : whole).format(figure);
}

function duration(ms) {
  if (Math.abs(ms) >= 3.6e12) return [number(ms / 86_400_000), "d"];
  if (ms < 1000) return [whole.format(ms), "ms"];
  if (ms < 120_000) return [fine.format(ms / 1000), "s"];
  if (ms < 7_200_000) return [fine.format(ms / 60_000), "min"];
  return [fine.format(ms / 3_600_000), "h"];
}
