/**
 * Whether what a page shows is current; and if it is not, a banner that says why, since when, and what happens next.
 */
import { $ } from "./dom.js";

const STATES = {
  idle: "starting",
  connecting: "connecting…",
  connected: "connected",
  waiting: "reconnecting…",
  closed: "not connected",
};
const REASONS = {
  1001: "the service has stopped",
  1006: "the service cannot be reached",
  1012: "the service is restarting",
  1013: "the service has too many connections",
  4000: "the service heard nothing from this page",
  4008: "this page was too slow for the events",
};
const NEW_TOKEN = "Sign in with a new one; “dcm-ws token NAME” makes it.";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export class Status {
  #title = document.title;
  #state = "idle";
  #client;
  #lostAt = null;
  #expiresAt = Infinity;
  // why the service does not take the token; empty while it does
  #refused = "";
  #watchers = [];
  #current = true;

  constructor() {
    setInterval(() => this.#show(), 1000);
  }

  /** Call `watcher` with whether the page is current, now and at each change. */
  onChange(watcher) {
    this.#watchers.push(watcher);
    watcher(this.#current);
  }

  /** @returns {boolean} false while the page has no connection, though it had one or tried to get one */
  get current() {
    return this.#current;
  }

  /** @returns {string} the time at which the connection was lost */
  get since() {
    return this.#lostAt === null ? "" : clock.format(this.#lostAt);
  }

  /** @param {string} name of the installation */
  name(name) {
    $("name").textContent = name;
    $("name").hidden = false;
    this.#title = `${name} – ${this.#title}`;
    this.#show();
  }

  /** @param {string} state the client's; without one, `waiting` for the service or `idle` for a token */
  connection(state, client) {
    this.#state = state;
    this.#client = client;
    if (state === "connected" || state === "idle") this.#lostAt = null;
    else if (state === "waiting" || state === "closed") this.#lostAt ??= Date.now();
    $("state").dataset.state = state;
    $("state-text").textContent = STATES[state] ?? state;
    this.#show();
  }

  /** @param {string | undefined} token the one that is in use from now on */
  token(token) {
    this.#refused = "";
    this.#expiresAt = expiryOf(token);
    this.#show();
  }

  /** @param {string} why the service refuses the token; empty if it does not */
  refused(why) {
    this.#refused = why;
    this.#show();
  }

  #show() {
    const [title, text, next] = this.#trouble();
    const current = this.#lostAt === null;
    const banner = $("banner");
    banner.hidden = !title;
    banner.dataset.kind = current ? "notice" : "lost";
    // written only when it changes: assistive technology reads it out each time
    for (const [id, said] of [["banner-title", title], ["banner-text", text], ["banner-next", next]]) {
      if ($(id).textContent !== said) $(id).textContent = said;
    }
    $("renew").hidden = !this.#wantsToken;
    const documentTitle = title ? `⚠ ${title} – ${this.#title}` : this.#title;
    if (document.title !== documentTitle) document.title = documentTitle;
    document.body.toggleAttribute("data-stale", !current);
    if (current === this.#current) return;
    this.#current = current;
    for (const watcher of this.#watchers) watcher(current);
  }

  get #wantsToken() {
    return this.#refused !== "" || Date.now() >= this.#expiresAt;
  }

  /** @returns {string[]} the title, the explanation, and what happens next; empty where all is well */
  #trouble() {
    const expired = Date.now() >= this.#expiresAt;
    if (this.#lostAt === null) {
      if (!this.#wantsToken) return ["", "", ""];
      const why = expired ? "Token expired" : "Token not accepted";
      return [why, `Events still come until the connection ends; names of agents and channels do not. ${NEW_TOKEN}`, ""];
    }
    const ago = spoken(Date.now() - this.#lostAt);
    if (this.#state === "closed") {
      const why = expired ? "the token has expired" : this.#refused || "the service does not accept the token";
      return [`Signed out since ${this.since}`, `Nothing here is current: ${why}. ${NEW_TOKEN}`, `for ${ago}`];
    }
    const retryAt = this.#client?.retryAt;
    const attempt = retryAt ? `next attempt in ${spoken(Math.max(0, retryAt - Date.now()))}` : "trying to connect";
    return [`Disconnected since ${this.since}`, `Nothing here is current: ${reasonOf(this.#client?.lastClose)}.`, `for ${ago}, ${attempt}`];
  }
}

function reasonOf(close) {
  if (!close) return REASONS[1006];
  const known = REASONS[close.code];
  // for every network failure the browser reports 1006 without a reason
  if (known) return close.reason && close.code === 1006 ? `${known} (${close.reason})` : known;
  return `the service closed the connection with ${[close.code, close.reason].filter(Boolean).join(" ")}`;
}

/** When a token expires, in milliseconds; Infinity if it has no expiry. */
function expiryOf(token) {
  try {
    const expiry = JSON.parse(atob(token.split(".")[0].replaceAll("-", "+").replaceAll("_", "/"))).expires_at;
    return Number.isFinite(expiry) ? expiry : Infinity;
  } catch {
    return Infinity;
  }
}

function spoken(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}
