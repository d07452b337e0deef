// node soak.js [SECONDS [EVENTS-A-SECOND]]: does the live page grow, or stutter?  Prints its heap and its frame times.
import { loadavg } from "node:os";
import { connected, launch } from "./browser.js";
import { client, closeClients, start } from "./running.js";

const [seconds = 600, rate = 50] = process.argv.slice(2).map(Number);
const service = await start();
const browser = await launch("--js-flags=--expose-gc", "--enable-precise-memory-info");
const page = await (await browser.newContext({ viewport: { width: 1360, height: 900 } })).newPage();
await page.goto(`${service.http}/live`);
await connected(page);
const debug = await page.context().newCDPSession(page);
const speaking = client(service.url, { channels: [] });
await speaking.connect();
const kinds = ["task.updated", "message.new", "agent.heartbeat", "system.info", "session.created"];
let n = 0;
const began = Date.now();
const timer = setInterval(() => {
  for (; n < ((Date.now() - began) / 1000) * rate; n += 1) {
    const data = { n, agent_id: `agent-${n % 20}`, text: "what an agent might say about its task" };
    speaking.publish(`topics/soak-${n % 5}`, kinds[n % kinds.length], data).catch(() => {});
  }
}, 20);

async function measure() {
  // rows come and go between a collection and the count: the least of several
  let usedSize = Infinity;
  let nodes = Infinity;
  for (let times = 0; times < 5; times += 1) {
    await debug.send("HeapProfiler.collectGarbage");
    usedSize = Math.min(usedSize, (await debug.send("Runtime.getHeapUsage")).usedSize);
    nodes = Math.min(nodes, (await debug.send("Memory.getDOMCounters")).nodes);
  }
  const frames = await page.evaluate(
    () =>
      new Promise((done) => {
        const times = [];
        let last = performance.now();
        const frame = (now) => {
          times.push(now - last);
          last = now;
          if (times.length < 600) requestAnimationFrame(frame);
          else done(times.slice(1).sort((one, other) => one - other));
        };
        requestAnimationFrame(frame);
      }),
  );
  const at = (share) => frames[Math.floor(share * (frames.length - 1))].toFixed(1);
  return `heap ${(usedSize / 2 ** 20).toFixed(1)} MiB, ${nodes} DOM nodes; frames: median ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms; load ${loadavg()[0].toFixed(1)}`;
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
await wait(15_000);
console.log(`after ${Math.round((Date.now() - began) / 1000)} s, ${n} events: ${await measure()}`);
for (let minute = 1; minute * 60 < seconds; minute += 1) {
  await wait(Math.max(0, began + minute * 60_000 - Date.now()));
  console.error(`${minute} min, ${n} events`);
}
await wait(Math.max(0, began + seconds * 1000 - Date.now()));
console.log(`after ${Math.round((Date.now() - began) / 1000)} s, ${n} events: ${await measure()}`);
clearInterval(timer);
closeClients();
await browser.close();
await service.stop();
