/**
 * The figures in the head of the page.
 */
import { $, whole } from "./dom.js";

export class Facts {
  // the log in PostgreSQL when it was looked at last
  #before;

  /** @param {object | null} stats the body of `/stats`, or of `/health`, which has no figures of the log */
  show(stats) {
    $("clients").textContent = stats?.connectedClients ?? "–";
    $("database").textContent = stats?.database.state ?? "–";
    this.#showLog(stats?.log?.events === undefined ? undefined : stats.log);
  }

  /** Their current values are unknown. */
  forget() {
    for (const fact of ["clients", "database", "latency", "logged", "position", "lag", "owed", "rate"]) $(fact).textContent = "–";
  }

  /** @param {number | undefined} ms of a round trip */
  showLatency(ms) {
    $("latency").textContent = ms === undefined ? "–" : milliseconds(ms);
  }

  /** @param {object | undefined} log the state and the figures of the log; undefined if they are not known */
  #showLog(log) {
    for (const [fact, value] of [["logged", log?.events], ["position", log?.head], ["owed", log?.owed]]) {
      $(fact).textContent = value === undefined ? "–" : whole.format(value);
    }
    const durable = log?.engine === "postgres";
    $("log-place").textContent = durable ? " in PostgreSQL" : log?.engine ? " in memory" : "";
    // why it is there, or not up
    $("logged").title = log?.reason ?? "";
    if (durable && log.state !== "up") $("logged").textContent = log.state;
    $("lag-fact").hidden = !durable;
    const count = durable && this.#before ? log.lagged - this.#before.lagged : 0;
    // a service that has restarted counts from 0
    $("lag").textContent = count > 0 ? milliseconds(((log.lagSeconds - this.#before.lagSeconds) / count) * 1000) : "–";
    this.#before = durable ? log : undefined;
  }
}

function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
