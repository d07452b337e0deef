/**
 * The page /dashboard: only the key figures, for a screen on the wall.
 */
import { join } from "./connection.js";
import { $ } from "./dom.js";
import { Kpis } from "./kpis.js";

const kpis = new Kpis($("kpis"));
await join((client) => {
  client.on("channel:metrics", (event) => kpis.show(event.data));
  // the next snapshot has all that the page shows
  client.on("gap", () => {});
});

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const tick = () => ($("clock").textContent = time.format(new Date()));
tick();
setInterval(tick, 1000);

// keep a wall screen awake; if the browser refuses, the system's setting applies
const stayAwake = () => document.visibilityState === "visible" && navigator.wakeLock?.request("screen").catch(() => {});
document.addEventListener("visibilitychange", stayAwake);
stayAwake();
