/**
 * The page /live.
 */
import { Chart } from "./chart.js";
import { ask, join } from "./connection.js";
import { $, element } from "./dom.js";
import { CATEGORIES, categoryOf } from "./filter.js";
import { listen } from "./keys.js";
import { Kpis } from "./kpis.js";
import { older } from "./older.js";
import { AgentDetail, EventLedger } from "./operators.js";
import { Stream } from "./stream.js";

const CATALOGUE = [
  ...["task.created", "task.updated", "task.completed", "task.failed"],
  ...["subtask.created", "subtask.updated", "subtask.completed", "subtask.failed", "subtask.running"],
  ...["message.new", "message.read", "message.expired"],
  ...["agent.connected", "agent.disconnected", "agent.heartbeat", "agent.blocked", "agent.unblocked"],
  ...["session.created", "session.ended", "metric.update", "system.error", "system.info"],
];
const WATCHED = 100;
// positions in the log that the page shows when it is opened, as far as they are of its channels
const LAST = 500;
// unsubscribe from a channel after this much silence, and stay unsubscribed as long: otherwise two pages would keep it alive
const QUIET_MS = 300_000;
const AGENTS_SHOWN = 500;

const figure = new Intl.NumberFormat();
const kpis = new Kpis($("kpis"));
const chart = new Chart($("chart"), $("legend"), $("chart-text"), CATEGORIES);
const stream = new Stream();
listen({
  "/": () => $("text").focus(),
  e: () => $("event").focus(),
  p: () => stream.togglePause(),
  r: () => $("reset").click(),
  j: () => stream.step(1),
  k: () => stream.step(-1),
  Escape: () => stream.leave(),
});
let head = 0;
const recent = [];
const heardOn = new Map();
const resting = new Map();
let lookSoon;
// the log in PostgreSQL when it was looked at last
let lagBefore;
const shownIds = new Set();

function receive(event) {
  // what comes on its own channel comes on global too
  if (shownIds.has(event.id)) return;
  shownIds.add(event.id);
  if (shownIds.size > 2000) shownIds.delete(shownIds.values().next().value);
  if (event.channel === "metrics" && event.event === "metric.update") kpis.show(event.data);
  const now = Date.now();
  // it happened before the page was connected
  const isOld = event.pos <= head;
  chart.count(categoryOf(event.event), isOld ? event.timestamp : now);
  if (!isOld) recent.push(performance.now());
  if (heardOn.has(event.channel)) heardOn.set(event.channel, now);
  // only the service knows whether an agent has another connection still
  if (/^agent\.(dis)?connected$/.test(event.event)) lookSoon ??= setTimeout(look, 300);
  stream.add(event);
}

/**
 * @param {string[]} names
 * @param {number} count of all, of which not all may be named
 * @param {Object<string, {owed: number}>} loads what they have not acknowledged
 */
function showAgents(names, count, loads) {
  $("agents").replaceChildren(
    ...names.slice(0, AGENTS_SHOWN).map((name) => {
      const item = element("li");
      const shown = element("button", name);
      shown.type = "button";
      shown.title = "Show its events";
      shown.setAttribute("aria-pressed", String(stream.filters.value.agent === name));
      item.append(shown);
      if (Object.hasOwn(loads, name) && loads[name].owed) item.append(element("small", `${figure.format(loads[name].owed)} owed`));
      return item;
    }),
  );
  $("agent-count").textContent = count;
  $("no-agents").hidden = names.length > 0;
}

const { client, identity, development, status } = await join((joining) => {
  joining.on("event", receive);
  joining.on("gap", (gap) => stream.gap(gap));
  joining.on("message", (frame) => {
    if (frame.type === "connected") head = frame.pos ?? 0;
  });
}, LAST);
$("publish").hidden = !development;
const ledger = new EventLedger(identity, development);
const agentDetail = new AgentDetail(identity, development);
stream.onChoose = (event) => ledger.choose(event);
$("agents").addEventListener("click", ({ target }) => {
  const name = target.closest("button")?.textContent;
  if (name !== undefined) chooseAgent(name === stream.filters.value.agent ? "" : name);
});
$("agent-close").addEventListener("click", () => chooseAgent(""));

$("older").addEventListener("click", async ({ target }) => {
  target.disabled = true;
  try {
    const stats = await ask("stats", identity.token);
    const end = stats?.log?.head ?? head;
    const found = await older({ channel: stream.filters.value.channel, token: identity.token, before: Math.min(stream.oldest, end + 1), head: end });
    stream.addOlder(found);
    target.textContent = found.length ? `${figure.format(found.length)} older` : "No older";
  } catch (error) {
    target.textContent = "Not loaded";
    target.title = error.message;
  }
  target.disabled = false;
  setTimeout(() => (target.textContent = "Older"), 2500);
});

/** Shows the events of an agent, and to operators what it is owed; with no name, those of all. */
function chooseAgent(name) {
  stream.filters.set({ agent: name });
  agentDetail.choose(name || null);
  for (const button of $("agents").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.textContent === name));
}

/** Reads what only HTTP provides: counts, the state of the database, and the existing channels. */
async function look() {
  clearTimeout(lookSoon);
  lookSoon = undefined;
  // a proxy may block /stats; /health does not list agents
  const stats = (await ask("stats", identity.token)) ?? (await ask("health", identity.token));
  if (!status.current) return;
  ledger.look();
  agentDetail.look();
  $("clients").textContent = stats?.connectedClients ?? "–";
  $("database").textContent = stats?.database.state ?? "–";
  // /health has no figures of the log
  showLog(stats?.log?.events === undefined ? undefined : stats.log);
  if (!stats) return;
  // everyone with a valid token may see the names
  const named = "channelStats" in stats;
  status.refused(named || !identity.token ? "" : "the service does not accept the token");
  // without a database nothing makes snapshots
  $("kpis").hidden = stats.database.state === "none" && !kpis.known;
  if (stats.agents) showAgents(Object.keys(stats.agentStats ?? {}).sort(), stats.agents.connected, stats.agentLoads ?? {});
  else $("agent-count").textContent = "–";
  $("no-agents").textContent = whyNone(named, stats.agents);
  watch(Object.entries(stats.channelStats ?? {}));
}

/** @param {object | undefined} log the state and the figures of the log; undefined if they are not known */
function showLog(log) {
  for (const [fact, value] of [["logged", log?.events], ["position", log?.head], ["owed", log?.owed]]) {
    $(fact).textContent = value === undefined ? "–" : figure.format(value);
  }
  const durable = log?.engine === "postgres";
  $("log-place").textContent = durable ? " in PostgreSQL" : log?.engine ? " in memory" : "";
  // why it is there, or not up
  $("logged").title = log?.reason ?? "";
  if (durable && log.state !== "up") $("logged").textContent = log.state;
  $("lag-fact").hidden = !durable;
  const count = durable && lagBefore ? log.lagged - lagBefore.lagged : 0;
  // a service that has restarted counts from 0
  $("lag").textContent = count > 0 ? milliseconds(((log.lagSeconds - lagBefore.lagSeconds) / count) * 1000) : "–";
  lagBefore = durable ? log : undefined;
}

function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function whyNone(named, agents) {
  if (!agents) return "Not known: /stats is not published here.";
  return named ? "No agent is connected." : "Their names are shown only with a valid token.";
}

/** With `--mirror database`, global does not carry what clients publish elsewhere: listen there too. */
function watch(channels) {
  const now = Date.now();
  for (const [name, until] of resting) if (until < now) resting.delete(name);
  for (const [name, subscribers] of channels) {
    if (name === "global" || name === "metrics" || (development && name.startsWith("agents/"))) continue;
    const at = heardOn.get(name);
    if (at === undefined) {
      if (heardOn.size >= WATCHED || resting.has(name)) continue;
      heardOn.set(name, now);
      client.subscribe(name).catch(() => {});
    } else if (subscribers === 1 || now - at > QUIET_MS) {
      heardOn.delete(name);
      resting.set(name, now + (subscribers === 1 ? 0 : QUIET_MS));
      client.unsubscribe(name).catch(() => {});
    }
  }
}

async function measure() {
  try {
    $("latency").textContent = milliseconds(await client.ping());
  } catch {
    $("latency").textContent = "–";
  }
}

status.onChange((current) => {
  for (const control of $("publish-form").elements) control.disabled = !current;
  $("published").textContent = current ? "" : "Publishing is disabled: the page is not connected.";
  if (current) return;
  // their current values are unknown
  for (const fact of ["clients", "database", "latency", "logged", "position", "lag", "owed", "rate"]) $(fact).textContent = "–";
  $("agent-count").textContent = `as of ${status.since}`;
});
client.on("state", (state) => {
  if (state === "connected") {
    look();
    measure();
  } else $("latency").textContent = "–";
});
if (client.state === "connected") {
  look();
  measure();
}
setInterval(look, 5000);
setInterval(() => client.state === "connected" && measure(), 5000);
setInterval(() => {
  const since = performance.now() - 5000;
  while (recent.length && recent[0] < since) recent.shift();
  if (status.current) $("rate").textContent = (recent.length / 5).toFixed(recent.length < 50 ? 1 : 0);
  if (!document.hidden) chart.draw();
}, 1000);
chart.draw();

for (const event of CATALOGUE) $("catalogue").append(new Option(event, event));
$("publish-form").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const said = $("published");
  said.className = "";
  try {
    const text = $("publish-data").value.trim();
    const answer = await client.publish($("publish-channel").value.trim(), $("publish-event").value.trim(), text ? JSON.parse(text) : null);
    said.textContent = `Published as ${answer.message_id}`;
  } catch (error) {
    said.className = "wrong";
    said.textContent = error instanceof SyntaxError ? `The data is not JSON: ${error.message}` : error.message;
  }
});
