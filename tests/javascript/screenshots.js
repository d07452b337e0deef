// node screenshots.js FOLDER [SECONDS]: the pages as they look at work.
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { connected, launch } from "./browser.js";
import { furnish, work } from "./demo.js";
import { closeClients, start } from "./running.js";

const [folder = "../../screenshots", seconds = "60"] = process.argv.slice(2);
const data = mkdtempSync(`${tmpdir()}/dcm-ws-screenshots-`);
chmodSync(data, 0o755);
mkdirSync(folder, { recursive: true });
const service = await start({ data, options: ["--metrics-interval", "1"] });
const browser = await launch();
await furnish(service);
const rest = await work(service);
const change = setInterval(() => {
  const n = Math.floor(Math.random() * 1e9);
  service.sql(`insert into actions values ('a${n}', 'session-1', 'edit', now());
    insert into agent_messages values ('m${n}', 'planner', 'coder-1', 'work', '{}', 1, now(), null);
    update task_lists set status = case when random() < 0.5 then 'running' else 'pending' end where id like 'wait-%' and random() < 0.08;
    select dcm_ws.publish('topics/release-2.4', 'task.updated', '{"task_id": "t-${n % 200}", "status": "running"}'::jsonb)`).catch(() => {});
}, 700);

const shots = [
  ["live-light", "/live", { colorScheme: "light", viewport: { width: 1440, height: 900 } }],
  ["live-dark", "/live", { colorScheme: "dark", viewport: { width: 1440, height: 900 } }],
  ["live-phone", "/live", { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true }],
  ["dashboard", "/dashboard", { colorScheme: "dark", viewport: { width: 1600, height: 900 } }],
];
const pages = [];
for (const [name, path, options] of shots) {
  const page = await (await browser.newContext(options)).newPage();
  await page.goto(service.http + path);
  await connected(page);
  pages.push([name, page]);
}
console.error(`collecting ${seconds} s of events`);
await new Promise((done) => setTimeout(done, Number(seconds) * 1000));
for (const [name, page] of pages) {
  if (name === "live-dark") {
    await page.fill("#text", "release notes");
    await page.locator("#rows .row").filter({ hasText: "task.created" }).first().click();
    await page.mouse.move(5, 5);
    await page.locator("#ledger").waitFor();
  }
  await page.screenshot({ path: `${folder}/${name}.png` });
}
clearInterval(change);
await service.stop();
const [, wall] = pages.find(([name]) => name === "dashboard");
await wall.locator("#banner", { hasText: "Disconnected" }).waitFor();
await wall.screenshot({ path: `${folder}/dashboard-disconnected.png` });
rest();
closeClients();
await browser.close();
rmSync(data, { recursive: true, force: true });
