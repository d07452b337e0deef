/**
 * The page /live.
 */
import { Agents } from "./agents.js";
import { Chart } from "./chart.js";
import { ask, join } from "./connection.js";
import { $, whole } from "./dom.js";
import { Facts } from "./facts.js";
import { CATEGORIES, categoryOf } from "./filter.js";
import { listen } from "./keys.js";
import { Kpis } from "./kpis.js";
import { older } from "./older.js";
import { AgentDetail, EventLedger } from "./operators.js";
import { offerPublishing } from "./publish.js";
import { Stream } from "./stream.js";
import { Watching } from "./watching.js";

// positions in the log that the page shows when it is opened, as far as they are of its channels
const LAST = 500;
const SHOWN_IDS = 2000;

const kpis = new Kpis($("kpis"));
const chart = new Chart($("chart"), $("legend"), $("chart-text"), CATEGORIES);
const facts = new Facts();
const stream = new Stream();
document.body.dataset.filled = "";
listen({
  "/": () => $("text").focus(),
  e: () => $("event").focus(),
  p: () => stream.togglePause(),
  r: () => $("reset").click(),
  o: () => $("older").click(),
  j: () => stream.step(1),
  k: () => stream.step(-1),
  Escape: () => stream.leave(),
});
let head = 0;
let lookSoon;
let watching;
const recent = [];
const shownIds = new Set();

function receive(event) {
  // what comes on its own channel comes on global too
  if (shownIds.has(event.id)) return;
  shownIds.add(event.id);
  if (shownIds.size > SHOWN_IDS) shownIds.delete(shownIds.values().next().value);
  if (event.channel === "metrics" && event.event === "metric.update") kpis.show(event.data);
  // it happened before the page was connected
  const isOld = event.pos <= head;
  chart.count(categoryOf(event.event), isOld ? event.timestamp : Date.now());
  if (!isOld) recent.push(performance.now());
  watching?.heard(event.channel);
  // only the service knows whether an agent has another connection still
  if (/^agent\.(dis)?connected$/.test(event.event)) lookSoon ??= setTimeout(look, 300);
  stream.add(event);
}

const { client, identity, development, status } = await join((joining) => {
  joining.on("event", receive);
  joining.on("gap", (gap) => stream.gap(gap));
  joining.on("message", (frame) => {
    if (frame.type === "connected") head = frame.pos ?? 0;
  });
}, LAST);
// in development an observer without a name may not read those of agents
const mayRead = (channel) => !(development && channel.startsWith("agents/"));
watching = new Watching(client, mayRead);
$("publish").hidden = !development;
offerPublishing(client, status);
const ledger = new EventLedger(identity, development);
stream.onChoose = (event) => ledger.choose(event);
const agents = new Agents((agent) => stream.filters.set({ agent }), development);
const agentDetail = new AgentDetail(identity, development);
stream.onFilter(showAgent);

$("older").addEventListener("click", async ({ target }) => {
  target.disabled = true;
  target.title = "";
  try {
    target.textContent = await loadOlder();
  } catch (error) {
    target.textContent = "Not loaded";
    target.title = error.message;
  }
  target.disabled = false;
  setTimeout(() => (target.textContent = "Older"), 2500);
});

/** @returns {Promise<string>} what was found */
async function loadOlder() {
  if (!stream.hasRoom) return "Page is full";
  const { channel: chosen } = stream.filters.value;
  const channel = chosen && mayRead(chosen) ? chosen : "global";
  const { events, from, isAll } = await older({ channel, token: identity.token, before: stream.before(channel) });
  const added = stream.addOlder(events, channel, from);
  if (added) return `${whole.format(added)} older`;
  return isAll ? "No older" : `None since ${whole.format(from)}`;
}

/** Marks the agent whose events are shown, and shows what it is owed if it is connected, or was. */
function showAgent({ agent }) {
  agents.choose(agent);
  if (agents.has(agent)) agentDetail.choose(agent);
  else if (agent !== agentDetail.name) agentDetail.choose(null);
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
  facts.show(stats);
  if (!stats) return;
  // everyone with a valid token may see the names
  status.refused("channelStats" in stats || !identity.token ? "" : "the service does not accept the token");
  // without a database nothing makes snapshots
  $("kpis").hidden = stats.database.state === "none" && !kpis.known;
  agents.show(stats);
  showAgent(stream.filters.value);
  watching.look(stats.channelStats ?? {});
}

async function measure() {
  facts.showLatency(await client.ping().catch(() => undefined));
}

status.onChange((current) => {
  if (current) return;
  facts.forget();
  $("agent-count").textContent = `as of ${status.since}`;
});
const lookAndMeasure = () => {
  look();
  measure();
};
client.on("state", (state) => (state === "connected" ? lookAndMeasure() : facts.showLatency(undefined)));
if (client.state === "connected") lookAndMeasure();
setInterval(look, 5000);
setInterval(() => client.state === "connected" && measure(), 5000);
setInterval(() => {
  const since = performance.now() - 5000;
  while (recent.length && recent[0] < since) recent.shift();
  if (status.current) $("rate").textContent = (recent.length / 5).toFixed(recent.length < 50 ? 1 : 0);
  if (!document.hidden) chart.draw();
}, 1000);
chart.draw();
