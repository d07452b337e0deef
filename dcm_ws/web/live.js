/**
 * The page /live.
 */
import { Chart } from "./chart.js";
import { $, ask, element, join } from "./connection.js";
import { Kpis } from "./kpis.js";
import { CATEGORIES, Stream, categoryOf } from "./stream.js";

const CATALOGUE = [
  ...["task.created", "task.updated", "task.completed", "task.failed"],
  ...["subtask.created", "subtask.updated", "subtask.completed", "subtask.failed", "subtask.running"],
  ...["message.new", "message.read", "message.expired"],
  ...["agent.connected", "agent.disconnected", "agent.heartbeat", "agent.blocked", "agent.unblocked"],
  ...["session.created", "session.ended", "metric.update", "system.error", "system.info"],
];
const WATCHED = 100;
const AGENTS_SHOWN = 500;

const kpis = new Kpis($("kpis"));
const chart = new Chart($("chart"), $("legend"), $("chart-text"), CATEGORIES);
const stream = new Stream();
const agents = new Map();
const recent = [];
let reported = 0;
const shownIds = new Set();

function receive(event) {
  // what comes on its own channel comes on global too
  if (shownIds.has(event.id)) return;
  shownIds.add(event.id);
  if (shownIds.size > 2000) shownIds.delete(shownIds.values().next().value);
  if (event.channel === "metrics" && event.event === "metric.update") kpis.show(event.data);
  chart.count(categoryOf(event.event), Date.now());
  recent.push(performance.now());
  if (event.event === "agent.connected") meet(event.data, 1);
  if (event.event === "agent.disconnected") meet(event.data, -1);
  stream.add(event);
}

function meet(data, change) {
  const agent = data?.agent_id;
  if (typeof agent !== "string") return;
  const count = (agents.get(agent) ?? 0) + change;
  if (count > 0) agents.set(agent, count);
  else agents.delete(agent);
  showAgents();
}

function showAgents() {
  const names = [...agents.keys()].sort();
  $("agents").replaceChildren(
    ...names.slice(0, AGENTS_SHOWN).map((name) => {
      const item = element("li");
      item.append(element("span", name));
      return item;
    }),
  );
  $("agent-count").textContent = String(Math.max(names.length, reported));
  $("no-agents").hidden = names.length > 0;
}

const { client, token, development } = await join((joining) => joining.on("event", receive));
$("publish").hidden = !development;

/** What only HTTP tells: counts, the database, and the channels that there are. */
async function look() {
  const [stats, health] = await Promise.all([ask("/stats", token), ask("/health", token)]);
  if (!stats || !health) return;
  $("clients").textContent = stats.connectedClients;
  $("database").textContent = health.database?.state ?? "–";
  reported = stats.authenticatedClients ?? 0;
  const channels = Object.entries(stats.channelStats ?? {});
  if (channels.length) {
    const here = channels.flatMap(([name]) => (name.startsWith("agents/") ? [name.slice(7)] : []));
    // those who came before this page, and those who went while it was away
    for (const name of here) if (!agents.has(name)) agents.set(name, 1);
    for (const name of [...agents.keys()]) if (!here.includes(name)) agents.delete(name);
  }
  showAgents();
  watch(channels);
}

/** On global an event does not say where it was published: listen there too. */
function watch(channels) {
  const mine = new Set(client.channels);
  for (const [name, subscribers] of channels) {
    const own = name === "global" || name === "metrics" || (development && name.startsWith("agents/"));
    if (!own && !mine.has(name) && mine.size < WATCHED) {
      mine.add(name);
      client.subscribe(name).catch(() => {});
    } else if (!own && mine.has(name) && subscribers === 1) {
      client.unsubscribe(name).catch(() => {});
    }
  }
}

async function measure() {
  try {
    const ms = await client.ping();
    $("latency").textContent = ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
  } catch {
    $("latency").textContent = "–";
  }
}

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
  $("rate").textContent = (recent.length / 5).toFixed(recent.length < 50 ? 1 : 0);
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
