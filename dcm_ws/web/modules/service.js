/**
 * The figures of the service itself, for the wall.
 */
import { element, whole } from "./dom.js";

const FIGURES = [
  ["events/s", (stats, rate) => rate],
  ["clients", (stats) => stats.connectedClients],
  ["agents", (stats) => stats.agents?.connected],
  ["owed", (stats) => stats.log?.owed],
  ["given up", (stats) => stats.failedDeliveries],
  ["dead letters", (stats) => stats.deadLetters?.kept],
  ["log", (stats) => stats.log?.state],
  ["database", (stats) => stats.database?.state],
];
// states in which all is well
const GOOD = ["up", "none", "following"];

const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export class ServiceFigures {
  #values = new Map();
  #before = null;

  /** @param {HTMLElement} parent a `dl` */
  constructor(parent) {
    for (const [name] of FIGURES) {
      const cell = element("div");
      const value = element("dd", "–");
      cell.append(element("dt", name), value);
      parent.append(cell);
      this.#values.set(name, value);
    }
  }

  /**
   * @param {object | null} stats the body of `/stats`, or of `/health`, which has less; null if nothing is known
   * @param {number} now ms
   */
  show(stats, now) {
    const events = stats?.events ? stats.events.client + stats.events.database : undefined;
    const rate = this.#rate(events, now);
    for (const [name, read] of FIGURES) {
      const value = stats ? read(stats, rate) : undefined;
      const shown = this.#values.get(name);
      shown.textContent = typeof value === "number" ? (name === "events/s" ? fine : whole).format(value) : (value ?? "–");
      shown.classList.toggle("wrong", typeof value === "string" && !GOOD.includes(value));
    }
  }

  /** Events per second since the last time; undefined if there was none. */
  #rate(events, now) {
    const before = this.#before;
    this.#before = events === undefined ? null : { events, now };
    // a service that has restarted counts from 0
    if (before === null || events === undefined || events < before.events || now <= before.now) return undefined;
    return ((events - before.events) * 1000) / (now - before.now);
  }
}
