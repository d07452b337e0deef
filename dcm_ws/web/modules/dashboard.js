/**
 * The page /dashboard: only the key figures and those of the service, for a screen on the wall.
 */
import { ask, join } from "./connection.js";
import { $ } from "./dom.js";
import { Kpis } from "./kpis.js";
import { ServiceFigures } from "./service.js";

const kpis = new Kpis($("kpis"));
const service = new ServiceFigures($("service"));
document.body.dataset.filled = "";
const { client, identity, status } = await join((client) => {
  client.on("channel:metrics", (event) => kpis.show(event.data));
  // the next snapshot has all that the page shows
  client.on("gap", () => {});
});

async function look() {
  // a proxy may block /stats
  const stats = (await ask("stats", identity.token)) ?? (await ask("health", identity.token));
  service.show(status.current ? stats : null, performance.now());
  // without a database nothing makes snapshots
  $("kpis").hidden = stats?.database.state === "none" && !kpis.known;
}
status.onChange((current) => (current ? look() : service.show(null, 0)));
client.on("state", (state) => state === "connected" && look());
setInterval(look, 5000);

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const tick = () => ($("clock").textContent = time.format(new Date()));
tick();
setInterval(tick, 1000);

// keep a wall screen awake; if the browser refuses, the system's setting applies
const stayAwake = () => document.visibilityState === "visible" && navigator.wakeLock?.request("screen").catch(() => {});
document.addEventListener("visibilitychange", stayAwake);
stayAwake();
