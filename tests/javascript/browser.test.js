// The pages in a real Chromium, on a real service with a real PostgreSQL.
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { connected, launch } from "./browser.js";
import { serveGuide } from "./guide.js";
import { client, closeClients, proxy, start, token, until } from "./running.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser, service, data;
beforeAll(async () => {
  data = mkdtempSync(`${tmpdir()}/dcm-ws-browser-`);
  // where root runs this, PostgreSQL has an account of its own
  chmodSync(data, 0o755);
  // nothing is sent again because a page is slow
  [browser, service] = await Promise.all([launch(), start({ data, options: ["--metrics-interval", "1", "--ack-timeout", "3600"] })]);
});
afterAll(async () => {
  await browser?.close();
  await service?.stop();
  rmSync(data, { recursive: true, force: true });
});

// one page for most tests: each new one has a process, which compiles the page's modules again
let shared;
let contexts = [];
let problems = [];
afterEach(async () => {
  closeClients();
  for (const context of contexts) await context.close();
  contexts = [];
  if (shared) {
    // nothing that this test did may be seen in the next one
    if (shared.url().startsWith("http")) await shared.evaluate(() => (localStorage.clear(), sessionStorage.clear()));
    await leave(shared);
    await shared.context().clearCookies();
    await shared.mouse.move(0, 0);
    await shared.setViewportSize(DESKTOP);
    for (const event of ["console", "pageerror", "request", "websocket"]) shared.removeAllListeners(event);
  }
  const found = problems;
  problems = [];
  expect(found).toEqual([]);
});

const DESKTOP = { width: 1360, height: 900 };
const DISCONNECTED = /WebSocket connection|ERR_CONNECTION_REFUSED/;

/** The shared page, or with other options a page in a context of its own.  It must not log errors, nor request what is elsewhere. */
async function open(url, { allowed = /never/, colorScheme = null, ...options } = {}) {
  let page = shared;
  if (Object.keys(options).length > 0) {
    const context = await browser.newContext({ viewport: DESKTOP, colorScheme, ...options });
    contexts.push(context);
    page = await context.newPage();
  } else {
    page ??= shared = await (await browser.newContext({ viewport: DESKTOP })).newPage();
    await page.emulateMedia({ colorScheme });
  }
  page.setDefaultTimeout(60_000);
  const found = problems;
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !allowed.test(message.text()) && found.push(message.text()));
  page.on("pageerror", (error) => found.push(String(error)));
  page.on("request", (request) => !request.url().startsWith(new URL(url).origin) && !/^(data|about):/.test(request.url()) && found.push(request.url()));
  await page.goto(url);
  return page;
}

/** The texts of the elements that do not fit in their boxes. */
const tooWide = (page, selector) =>
  page.locator(selector).evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent));

/** Close what is shown, so that it does not complain that the service is gone. */
const leave = (page) => page.goto("about:blank");

const rows = (page) => page.locator("#rows .row");
const names = (page) => page.locator("#rows .row b").allTextContents();
const notify = (event, value, channel = "global") => service.sql("select pg_notify('dcm_events', %s)", JSON.stringify({ channel, event, data: value }));

async function speak() {
  const speaking = client(service.url, { channels: [] });
  await speaking.connect();
  return speaking;
}

test("the client in a browser reads integers beyond 2^53 as the documentation shows", async () => {
  const page = await open(`${service.http}/live`);
  await connected(page);
  // as text: the test runner would put imports of its own into a function
  const hearing = page.evaluate(String.raw`(async () => {
    const { DCMClient } = await import("/dcm-ws.js");
    const parse = (text) =>
      JSON.parse(text, (key, value, { source }) =>
        typeof value === "number" && /^-?\d+$/.test(source) && !Number.isSafeInteger(value) ? BigInt(source) : value);
    const client = new DCMClient("/ws", { channels: ["topics/big"], parse });
    const event = await new Promise((come) => {
      client.on("event", come);
      client.connect().then(() => (window.ready = true));
    });
    client.close();
    return { id: String(event.data.id), small: event.data.small, raw: event.raw };
  })()`);
  await page.waitForFunction(() => window.ready);
  await service.sql("select pg_notify('dcm_events', %s)", '{"channel":"topics/big","event":"task.created","data":{"id":9007199254740993,"small":7}}');
  const { id, small, raw } = await hearing;
  expect([id, small]).toEqual(["9007199254740993", 7]);
  expect(raw).toContain('"id":9007199254740993');
});

test("the application of the React guide shows events, and state that stays right when the service has lost its log", async () => {
  const answers = { token: token("page"), orders: { "o-1": { id: "o-1", status: "new" } } };
  const guide = await serveGuide(answers);
  const options = ["--allowed-origin", guide.origin];
  let mortal = await start({ production: true, options });
  guide.connect(mortal.url);
  const page = await open(guide.origin, { allowed: DISCONNECTED });
  await page.locator("#state", { hasText: '"status":"new"' }).waitFor();
  await page.getByText("connecting").waitFor({ state: "hidden" });
  const shop = client(mortal.url, { token: token("shop"), channels: [] });
  await shop.connect();
  await shop.publish("topics/orders", "task.updated", { id: "o-1", status: "paid" });
  await page.locator("#root li", { hasText: 'task.updated: {"id":"o-1","status":"paid"}' }).waitFor();
  await page.locator("#state", { hasText: '{"o-1":{"id":"o-1","status":"paid"}}' }).waitFor();
  shop.close();
  // without a word, so that the application comes back soon
  await mortal.stop("SIGKILL");
  await page.locator("#root p", { hasText: "not connected: " }).waitFor();
  answers.orders["o-1"].status = "sent";
  mortal = await start({ production: true, options, port: mortal.port });
  await page.locator("#state", { hasText: '"status":"sent"' }).waitFor();
  await leave(page);
  guide.close();
  await mortal.stop();
});

describe("/live", () => {
  test("shows what the database says", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    await notify("task.completed", { task_id: "t-1", agent_id: "ann" });
    await rows(page).filter({ hasText: "t-1" }).waitFor();
    await page.waitForFunction(() => /\d/.test(document.querySelector('[data-kpi="active_sessions"] p').textContent));
    await page.locator("#database", { hasText: /^up$/ }).waitFor();
    await page.locator("#latency", { hasText: /ms$/ }).waitFor();
    expect(await page.isVisible("#publish")).toBe(true);
  });

  test("shows how much is in the log, and what each agent owes", async () => {
    const owing = client(service.url, { agentId: "owing", channels: ["topics/owed"] });
    await owing.connect();
    // never settled, so never acknowledged
    owing.on("channel:topics/owed", () => new Promise(() => {}));
    const speaking = await speak();
    await speaking.publish("topics/owed", "task.created", 1);
    const page = await open(`${service.http}/live`);
    await connected(page);
    await page.locator("#agents li").filter({ hasText: "owing" }).filter({ hasText: "1 owed" }).waitFor();
    expect(Number(await page.textContent("#logged"))).toBeGreaterThan(0);
    expect(Number(await page.textContent("#owed"))).toBeGreaterThan(0);
    expect(Number(await page.textContent("#position"))).toBeGreaterThan(0);
    expect(await page.textContent("#log-place")).toBe(" in PostgreSQL");
    expect(await page.isVisible("#lag")).toBe(true);
    owing.close();
  });

  test("shows the lag of what is published in the database", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    // the page needs the figures of before to take the mean of what came since
    await page.waitForFunction(() => /\d/.test(document.querySelector("#position").textContent));
    await service.sql("select dcm_ws.publish('topics/lag', 'task.created', '{\"text\":\"committed\"}'::jsonb)");
    await rows(page).filter({ hasText: "committed" }).waitFor();
    await page.waitForFunction(() => / ms$/.test(document.querySelector("#lag").textContent));
  });

  test("says that the log is in memory where there is no database, and shows no lag", async () => {
    const lonely = await start();
    const page = await open(`${lonely.http}/live`);
    await connected(page);
    await page.waitForFunction(() => document.querySelector("#log-place").textContent !== "");
    expect(await page.textContent("#log-place")).toBe(" in memory");
    expect(await page.isVisible("#lag")).toBe(false);
    await leave(page);
    await lonely.stop();
  });

  test("a browser that asks for / gets there", async () => {
    const page = await open(service.http);
    expect(new URL(page.url()).pathname).toBe("/live");
    await connected(page);
  });

  test("nothing moves when its script has come, but events", async () => {
    for (const path of ["/live", "/dashboard"]) {
      const page = await open(service.http + path);
      await page.route(`**${path}.js`, async (route) => {
        await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length);
        await route.continue();
      });
      await page.reload();
      await connected(page);
      const moved = await page.evaluate(() => {
        const shifts = new PerformanceObserver(() => {});
        shifts.observe({ type: "layout-shift", buffered: true });
        const nodes = shifts.takeRecords().flatMap(({ sources }) => sources.map(({ node }) => node));
        return nodes.filter((node) => node?.closest?.("main") && !node.closest(".row")).map((node) => node.outerHTML.slice(0, 80));
      });
      expect([path, moved]).toEqual([path, []]);
      await page.unroute(`**${path}.js`);
    }
  });

  test("filters by category, channel, agent and text", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    // so that there is such a channel to watch
    const listening = client(service.url, { channels: ["topics/filtered"] });
    await listening.connect();
    await until(async () => (await service.channels())["topics/filtered"] === 2);
    await speaking.publish("topics/filtered", "task.created", { agent_id: "ann", text: "first needle" });
    await speaking.publish("global", "message.new", { from_agent_id: "bob", text: "second" });
    await speaking.publish("global", "system.info", { text: "third needle" });
    await rows(page).filter({ hasText: "third" }).waitFor();
    const seen = async () => (await names(page)).filter((name) => !name.startsWith("metric.")).slice(0, 3);
    expect(await seen()).toEqual(["system.info", "message.new", "task.created"]);
    await page.check('#categories input[value="message"]', { force: true });
    expect(await seen()).toEqual(["message.new"]);
    await page.uncheck('#categories input[value="message"]', { force: true });
    await page.selectOption("#channel", "topics/filtered");
    expect(await seen()).toEqual(["task.created"]);
    await page.selectOption("#channel", "");
    await page.selectOption("#agent", "bob");
    expect(await seen()).toEqual(["message.new"]);
    await page.selectOption("#agent", "");
    await page.keyboard.press("Escape");
    await page.locator("#rows").focus();
    await page.keyboard.press("/");
    await page.keyboard.type("NEEDLE");
    expect(await seen()).toEqual(["system.info", "task.created"]);
    await page.fill("#text", "no such thing");
    await page.getByText("No events match the filter.").waitFor();
  });

  test("names the channel and the publisher of what comes on global only", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const bob = client(service.url, { agentId: "bob", channels: [] });
    await bob.connect();
    await bob.publish("agents/ann", "message.new", { text: "for ann" });
    const row = rows(page).filter({ hasText: "for ann" });
    await row.waitFor();
    expect(await row.locator("span").textContent()).toBe("agents/ann");
    await row.click();
    expect(await page.textContent("#detail-facts")).toContain("frombob");
    await page.selectOption("#channel", "agents/ann");
    expect(await names(page)).toEqual(["message.new"]);
  });

  test("pauses, and goes on with what came meanwhile", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await page.check('#categories input[value="system"]', { force: true });
    await speaking.publish("global", "system.info", { n: "before" });
    await rows(page).filter({ hasText: "before" }).waitFor();
    await page.click("#pause");
    await speaking.publish("global", "system.info", { n: "while" });
    await page.waitForFunction(() => /Resume \(\d+ new\)/.test(document.querySelector("#pause").textContent));
    expect(await rows(page).filter({ hasText: "while" }).count()).toBe(0);
    await page.click("#pause");
    await rows(page).filter({ hasText: "while" }).waitFor();
    await page.click("#clear");
    expect(await rows(page).count()).toBe(0);
  });

  test("shows an event's data, by mouse and by keyboard", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await page.check('#categories input[value="session"]', { force: true });
    await speaking.publish("global", "session.created", { n: 1 });
    await speaking.publish("global", "session.ended", { n: 2 });
    await rows(page).nth(1).waitFor();
    await rows(page).nth(1).click();
    expect(await page.textContent("#detail-json")).toBe('{\n  "n": 1\n}');
    // its channel is a click away
    await page.locator("#detail-facts button", { hasText: "global" }).click();
    expect(await page.inputValue("#channel")).toBe("global");
    await page.locator("#rows").focus();
    await page.keyboard.press("ArrowUp");
    expect(await page.textContent("#detail-title")).toBe("session.ended");
    await page.keyboard.press("Escape");
    expect(await page.isVisible("#detail")).toBe(false);
  });

  test("shows operators what became of an event, and what an agent is owed", async () => {
    const worker = client(service.url, { agentId: "worker/1", channels: ["topics/ledger"] });
    await worker.connect();
    // settled when the test says so
    let settle;
    worker.on("channel:topics/ledger", () => new Promise((settled) => (settle = settled)));
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await speaking.publish("topics/ledger", "task.created", { n: "for the ledger" });
    await page.fill("#text", "for the ledger");
    await rows(page).first().click();
    const agent = page.locator("#ledger-agents > li", { hasText: "worker/1" });
    await agent.filter({ hasText: "sent" }).waitFor();
    await page.locator("#agents button", { hasText: "worker/1" }).click();
    await page.locator("#agent-owed li", { hasText: "sent 1×" }).waitFor();
    expect(await page.textContent("#agent-facts")).toContain("topics/ledger");
    await until(() => settle);
    settle();
    // the page asks again every five seconds
    await agent.filter({ hasText: "acknowledged" }).waitFor();
    await agent.locator("summary").click();
    expect((await agent.locator("ol li").allTextContents()).map((step) => step.split(" ").at(-1))).toEqual(["sent", "acknowledged"]);
    await page.click("#agent-close");
    expect(await page.isVisible("#agent-detail")).toBe(false);
    worker.close();
  });

  test("lists the agents that are connected", async () => {
    const early = client(service.url, { agentId: "early-agent" });
    await early.connect();
    const page = await open(`${service.http}/live`);
    await connected(page);
    await page.locator("#agents li", { hasText: "early-agent" }).waitFor();
    const late = client(service.url, { agentId: "late-agent" });
    await late.connect();
    await page.locator("#agents li", { hasText: "late-agent" }).waitFor();
    // one that is listened to is not connected for that
    await late.subscribe("agents/ghost");
    early.close();
    await page.locator("#agents li", { hasText: "early-agent" }).waitFor({ state: "detached" });
    expect(await page.locator("#agents li").allTextContents()).toEqual(["late-agent"]);
    expect(await page.textContent("#agent-count")).toBe("1");
  });

  test("publishes, and says what was wrong", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    await page.fill("#publish-data", '{"from": "the page"}');
    await page.click("#publish-form button");
    await rows(page).filter({ hasText: "the page" }).waitFor();
    expect(await page.textContent("#published")).toMatch(/^Published as msg_/);
    await page.fill("#publish-data", "{");
    await page.click("#publish-form button");
    await page.getByText("The data is not JSON").waitFor();
    await page.fill("#publish-data", "");
    await page.fill("#publish-event", "no.such");
    await page.click("#publish-form button");
    await page.getByText("Invalid event type: no.such").waitFor();
  });

  test("what events hold does nothing in the page", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
    await notify("task.created", { [evil]: evil, agent_id: evil, deep: { toString: null, __proto__: 1 } });
    await notify("system.info", null);
    await rows(page).filter({ hasText: "onerror" }).first().click();
    expect(await page.textContent("#detail-json")).toContain("<script>");
    expect(await page.evaluate(() => [window.hacked, document.querySelectorAll("#rows img, #detail img, #agent img").length])).toEqual([undefined, 0]);
  });

  test("many events at once are shown in a bounded list", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await Promise.all(Array.from({ length: 1500 }, (_, n) => speaking.publish("global", "system.info", { n })));
    await rows(page).filter({ hasText: '"n":1499' }).waitFor();
    expect(await rows(page).count()).toBeLessThanOrEqual(150);
    expect(await page.textContent("#shown")).toMatch(/^1,000 events$|of 1,000 match$/);
  });

  test("shows the last events at once, and after a reconnection what it has missed, each once", async () => {
    const own = await start();
    const way = await proxy(own.port);
    const speaking = client(own.url, { channels: [] });
    await speaking.connect();
    const say = (number) => speaking.publish(number % 2 ? "global" : "topics/away", number % 3 ? "task.created" : "session.created", { number: `n${number}.` });
    for (let number = 0; number < 20; number += 1) await say(number);
    const page = await open(way.url.replace("ws:", "http:").replace("/ws", "/live"), { allowed: /ERR_|WebSocket connection/ });
    await rows(page).filter({ hasText: "n19." }).waitFor();
    for (let number = 20; number < 40; number += 1) {
      await say(number);
      if (number === 25) way.cut();
    }
    await rows(page).filter({ hasText: "n39." }).waitFor();
    await connected(page);
    const shown = (await page.locator("#rows .row code").allTextContents()).map((text) => /n(\d+)\./.exec(text)?.[1]).filter(Boolean).map(Number);
    expect(shown.reverse()).toEqual(Array.from({ length: 40 }, (_, number) => number));
    expect(await names(page)).not.toContain("gap");
    way.close();
    await own.stop();
  });

  test("has a line where events are missing", async () => {
    const mortal = await start();
    const page = await open(`${mortal.http}/live`, { allowed: /ERR_|WebSocket connection|503/ });
    await connected(page);
    await mortal.stop();
    const next = await start({ port: mortal.port });
    await rows(page).filter({ hasText: "while the service restarted" }).waitFor();
    expect(await names(page)).toContain("gap");
    await next.stop();
  });

  test("the client in a page goes on after a reload, with what is in the storage", async () => {
    // which it fills when the page is left, too
    const page = await open(`${service.http}/live`, { viewport: DESKTOP });
    const listen = String.raw`(async () => {
      const { DCMClient } = await import("/dcm-ws.js");
      window.heard = [];
      window.client = new DCMClient("/ws", { channels: ["topics/reload"], storage: sessionStorage, storageKey: "test" });
      window.client.on("channel:topics/reload", (event) => window.heard.push(event.data));
      await window.client.connect();
    })()`;
    await page.evaluate(listen);
    const speaking = await speak();
    await speaking.publish("topics/reload", "task.created", 1);
    await page.waitForFunction(() => window.heard.length === 1);
    await page.reload();
    await speaking.publish("topics/reload", "task.created", 2);
    await page.evaluate(listen);
    await page.waitForFunction(() => window.heard.length >= 1);
    await speaking.publish("topics/reload", "task.created", 3);
    await page.waitForFunction(() => window.heard.includes(3));
    expect(await page.evaluate(() => window.heard)).toEqual([2, 3]);
  });

  test("survives a restart of the service", async () => {
    let mortal = await start();
    const page = await open(`${mortal.http}/live`, { allowed: DISCONNECTED });
    await connected(page);
    await mortal.stop();
    await page.waitForSelector('#state[data-state="waiting"], #state[data-state="connecting"]');
    mortal = await start({ port: mortal.port });
    await connected(page);
    const speaking = client(mortal.url, { channels: [] });
    await speaking.connect();
    await speaking.publish("global", "system.info", { text: "and on" });
    await rows(page).filter({ hasText: "and on" }).waitFor();
    await mortal.stop();
  });

  test("asks for a token in production, and keeps it nowhere", async () => {
    const guarded = await start({ production: true });
    const page = await open(`${guarded.http}/live`);
    await page.waitForSelector("#sign-in[open]");
    await page.fill("#token", "not a token");
    await page.click("#sign-in .primary");
    await page.waitForFunction(() => document.querySelector("#sign-in-error").textContent !== "");
    await page.waitForSelector("#sign-in[open]");
    // browsers close a dialog at the second one, whatever the page says
    for (let times = 0; times < 3; times += 1) await page.keyboard.press("Escape");
    await page.waitForSelector("#sign-in[open]");
    const good = token("watcher");
    await page.fill("#token", good);
    await page.click("#sign-in .primary");
    await connected(page);
    expect(await page.isVisible("#publish")).toBe(false);
    await client(guarded.url, { token: token("worker") }).connect();
    await page.locator("#agents li", { hasText: "worker" }).waitFor();
    // the page observes: it is not its agent's presence
    expect(await page.locator("#agents li").allTextContents()).toEqual(["worker"]);
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href, document.documentElement.outerHTML]));
    expect(kept).not.toContain(good);
    await leave(page);
    await guarded.stop();
  });

  test("goes on without a token where anybody may listen, and asks for one where that has changed", async () => {
    let open_ = await start({ production: true, options: ["--anonymous", "listen"] });
    const page = await open(`${open_.http}/live`, { allowed: DISCONNECTED });
    await connected(page);
    expect(await page.isVisible("#sign-in")).toBe(false);
    const speaking = client(open_.url, { token: token("worker") });
    await speaking.connect();
    await speaking.publish("topics/open", "task.created", { n: 1 });
    await page.locator("#rows .row", { hasText: "task.created" }).waitFor();
    await page.locator("#no-agents", { hasText: "only with a valid token" }).waitFor();
    expect(await page.isVisible("#publish")).toBe(false);
    expect(await page.isVisible("#banner")).toBe(false);
    await open_.stop();
    open_ = await start({ production: true, port: open_.port, options: ["--auth-timeout", "3"] });
    await page.waitForSelector("#sign-in[open]");
    expect(await page.textContent("#sign-in-error")).toBe("The service accepts no one without a token now.");
    await page.fill("#token", token("watcher"));
    await page.click("#sign-in .primary");
    await connected(page);
    await leave(page);
    await open_.stop();
  });
});

describe("the list of events", () => {
  test("counts what fits the filter, however much goes by", async () => {
    // one without snapshots, of which some would come in between
    const lonely = await start();
    const page = await open(`${lonely.http}/live`);
    await connected(page);
    const speaking = client(lonely.url, { channels: [] });
    await speaking.connect();
    await page.check('#categories input[value="session"]', { force: true });
    const publish = (event, count) => Promise.all(Array.from({ length: count }, (_, n) => speaking.publish("global", event, { n })));
    await publish("session.created", 20);
    await publish("system.info", 900);
    await publish("session.ended", 3);
    await rows(page).filter({ hasText: "session.ended" }).nth(2).waitFor();
    expect(await page.textContent("#shown")).toMatch(/^23 of [\d,]+ match$/);
    await publish("system.info", 985);
    await page.waitForFunction(() => document.querySelector("#shown").textContent === "3 of 1,000 match");
    await page.click("#clear");
    expect(await page.textContent("#shown")).toBe("none yet");
    await leave(page);
    await lonely.stop();
  });

  test("is bounded in size, too", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await page.check('#categories input[value="system"]', { force: true });
    for (let n = 100; n < 122; n += 1) {
      await speaking.publish("global", "system.info", { n, text: "x".repeat(900_000) });
      // or so much would wait for the page that the service closed its connection
      await rows(page).filter({ hasText: `"n":${n}` }).waitFor();
    }
    // 16 million characters hold 17 of them, and what else came by
    expect(Number(/^(\d+) of/.exec(await page.textContent("#shown"))[1])).toBeOneOf([16, 17]);
  });

  test("leaves the focus where it can be used", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    await page.check('#categories input[value="session"]', { force: true });
    await speaking.publish("global", "session.created", { n: 1 });
    await rows(page).first().click();
    await page.locator("#publish-data").press("Escape");
    expect(await page.isVisible("#detail")).toBe(true);
    await page.locator("#close").focus();
    await page.keyboard.press("Enter");
    expect(await page.isVisible("#detail")).toBe(false);
    expect(await page.evaluate(() => document.activeElement.id)).toBe("rows");
    await page.keyboard.press("ArrowDown");
    expect(await page.getAttribute("#rows", "aria-activedescendant")).toMatch(/^row-/);
    await page.fill("#text", "no such thing");
    expect(await page.getAttribute("#rows", "aria-activedescendant")).toBe(null);
  });

  test("can be chosen from by the names seen last", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    const speaking = await speak();
    for (let n = 0; n < 250; n += 1) await speaking.publish("global", "agent.heartbeat", { agent_id: `a${n}` });
    await page.waitForFunction(() => [...document.querySelector("#agent").options].some(({ value }) => value === "a249"));
    const values = await page.locator("#agent option").evaluateAll((options) => options.map(({ value }) => value));
    expect(values.length).toBe(201);
    expect(values).toEqual([...values].sort());
  });
});

describe("finding events", () => {
  const publish = async (speaking, ...events) => {
    for (const [channel, event, data] of events) await speaking.publish(channel, event, data);
  };

  test("filters by patterns, also negative, which the address and the next visit have", async () => {
    const page = await open(`${service.http}/live?event=task.*+-task.updated&text=patterned`);
    await connected(page);
    await publish(await speak(), ["global", "task.updated", "patterned 1"], ["global", "task.created", "patterned 2"], ["global", "system.info", "patterned 3"]);
    await rows(page).first().waitFor();
    expect(await names(page)).toEqual(["task.created"]);
    expect(await page.isChecked('#categories input[value="task"]')).toBe(true);
    await page.uncheck('#categories input[value="task"]', { force: true });
    expect(await page.inputValue("#event")).toBe("-task.updated");
    expect(await names(page)).toEqual(["system.info", "task.created"]);
    await page.waitForURL(/event=-task.updated&text=patterned$/);
    // what is remembered, without the address
    await page.goto(`${service.http}/live`);
    await rows(page).first().waitFor();
    expect(await page.inputValue("#event")).toBe("-task.updated");
    expect(await page.inputValue("#text")).toBe("patterned");
    await page.click("#reset");
    expect(await page.inputValue("#event")).toBe("-metric.update");
    await page.waitForURL(/live$/);
  });

  test("leaves out the snapshots until they are asked for", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    await page.waitForFunction(() => /\d/.test(document.querySelector('[data-kpi="active_sessions"] p').textContent));
    expect(await names(page)).not.toContain("metric.update");
    await page.check('#categories input[value="metric"]', { force: true });
    await rows(page).filter({ hasText: "metric.update" }).first().waitFor();
    expect(await page.inputValue("#event")).toBe("metric.*");
    await page.uncheck('#categories input[value="metric"]', { force: true });
    expect(await page.inputValue("#event")).toBe("-metric.update");
  });

  test("marks what was found, however far in the data it is", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    await publish(await speak(), ["global", "task.created", { long: "x".repeat(2000), inner: { end: "The Marked Word" } }]);
    await page.fill("#text", "marked word");
    const row = rows(page).filter({ hasText: "Marked Word" });
    await row.waitFor();
    expect(await row.locator("mark").allTextContents()).toEqual(["Marked Word"]);
    await row.click();
    expect(await page.locator("#detail-json mark").allTextContents()).toEqual(["Marked Word"]);
  });

  test("stands still under the mouse and where it is scrolled, says how much is new, and goes on", async () => {
    const page = await open(`${service.http}/live?text=still`);
    await connected(page);
    const speaking = await speak();
    await Promise.all(Array.from({ length: 200 }, (_, n) => speaking.publish("global", "system.info", `still ${n}.`)));
    await rows(page).filter({ hasText: "still 199." }).waitFor();
    await page.hover("#rows");
    await publish(speaking, ["global", "system.info", "still under the mouse"], ["global", "system.info", "not this"]);
    await page.locator("#held", { hasText: /^Paused, 1 new$/ }).waitFor();
    expect(await rows(page).filter({ hasText: "under the mouse" }).count()).toBe(0);
    await page.mouse.move(5, 5);
    await rows(page).filter({ hasText: "under the mouse" }).waitFor();
    expect(await page.isVisible("#held")).toBe(false);
    // at the end there are the older ones
    expect(await rows(page).count()).toBe(150);
    await page.locator("#rows").evaluate((list) => list.scrollTo(0, list.scrollHeight));
    await page.locator("#held", { hasText: "Paused – resume" }).waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#rows .row").length > 150);
    await publish(speaking, ["global", "system.info", "still scrolled"]);
    await page.locator("#held", { hasText: "Paused, 1 new – resume" }).click();
    await rows(page).filter({ hasText: "still scrolled" }).waitFor();
    expect(await page.locator("#rows").evaluate((list) => list.scrollTop)).toBe(0);
  });

  test("saves what matches as JSON lines", async () => {
    const page = await open(`${service.http}/live?text=exported`);
    await connected(page);
    await publish(await speak(), ["global", "task.created", { n: 1, text: "exported" }], ["topics/e", "system.info", { n: 2, text: "exported" }]);
    await rows(page).nth(1).waitFor();
    const [saved] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
    expect(saved.suggestedFilename()).toMatch(/^dcm-ws-.*\.jsonl$/);
    const lines = readFileSync(await saved.path(), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
    expect(lines.map(({ channel, event, data }) => [channel, event, data.n])).toEqual([["global", "task.created", 1], ["topics/e", "system.info", 2]]);
  });

  test("loads older events from the log over HTTP, each once, also after those of one channel", async () => {
    const own = await start();
    const speaking = client(own.url, { channels: [] });
    await speaking.connect();
    await Promise.all(Array.from({ length: 700 }, (_, n) => speaking.publish(n % 2 ? "topics/odd" : "topics/even", "task.created", `old ${n}.`)));
    const page = await open(`${own.http}/live`);
    const shown = (text) => page.waitForFunction((wanted) => document.querySelector("#shown").textContent === wanted, text);
    await shown("500 events");
    let sockets = 0;
    page.on("websocket", () => (sockets += 1));
    await page.selectOption("#channel", "topics/odd");
    await shown("250 of 500 match");
    await page.click("#older");
    await shown("350 of 600 match");
    expect(await page.getAttribute("#pause", "aria-pressed")).toBe("true");
    await page.selectOption("#channel", "");
    await page.click("#older");
    await shown("700 events");
    await page.click("#older");
    await page.locator("#older", { hasText: "No older" }).waitFor();
    await shown("700 events");
    // in the order of the log, also where they were read one channel after the other
    const [saved] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
    const positions = readFileSync(await saved.path(), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line).pos);
    expect(positions).toEqual(Array.from({ length: 700 }, (_, n) => n + 1));
    expect(sockets).toBe(0);
    await leave(page);
    await own.stop();
  });

  test("loads large events and those of a channel with few", async () => {
    const own = await start();
    const speaking = client(own.url, { channels: [] });
    await speaking.connect();
    await speaking.publish("topics/few", "task.created", "the only one");
    // 100 of them are more than a page of the log
    await Promise.all(Array.from({ length: 100 }, (_, n) => speaking.publish("topics/large", "task.created", { n, text: "x".repeat(10_000) })));
    await Promise.all(Array.from({ length: 1600 }, (_, n) => speaking.publish("topics/many", "task.updated", n)));
    const page = await open(`${own.http}/live?channel=topics%2Ffew`);
    const shown = (text) => page.waitForFunction((wanted) => document.querySelector("#shown").textContent === wanted, text);
    await shown("0 of 500 match");
    await page.click("#older");
    await rows(page).filter({ hasText: "the only one" }).waitFor();
    await page.selectOption("#channel", "");
    await page.click("#older");
    await shown("1,501 events");
    await page.click("#older:enabled");
    await shown("1,701 events");
    await leave(page);
    await own.stop();
  });

  test("has keys, and shows them", async () => {
    const page = await open(`${service.http}/live?text=keyed`);
    await connected(page);
    await publish(await speak(), ["global", "task.created", "keyed 1"], ["global", "task.updated", "keyed 2"]);
    await rows(page).nth(1).waitFor();
    await page.keyboard.press("?");
    await page.locator("#keys", { hasText: "find text" }).waitFor();
    await page.keyboard.press("p");
    await page.keyboard.press("Escape");
    // which closes it some time later
    await page.locator("#keys").waitFor({ state: "hidden" });
    expect(await page.getAttribute("#pause", "aria-pressed")).toBe("false");
    for (const [key, title] of [["j", "task.updated"], ["j", "task.created"], ["k", "task.updated"]]) {
      await page.keyboard.press(key);
      expect(await page.textContent("#detail-title")).toBe(title);
    }
    await page.keyboard.press("p");
    expect(await page.getAttribute("#pause", "aria-pressed")).toBe("true");
    await page.keyboard.press("p");
    await page.keyboard.press("e");
    // in a field they are letters
    await page.keyboard.type(" rep");
    expect(await page.inputValue("#event")).toBe("-metric.update rep");
    expect(await page.getAttribute("#pause", "aria-pressed")).toBe("false");
  });

  test("shows the envelope, folds what is long, and publishes again", async () => {
    const page = await open(`${service.http}/live?text=folded`);
    await connected(page);
    await publish(await speak(), ["topics/again", "task.created", { text: "folded", list: Array.from({ length: 300 }, (_, n) => `item ${n}`), short: [1] }]);
    await rows(page).first().click();
    expect(await page.textContent("#detail-json")).not.toContain("item 7");
    await page.locator("#detail-json summary", { hasText: "[…] 300" }).click();
    expect(await page.textContent("#detail-json")).toContain('"item 299"');
    await page.locator(".envelope summary").click();
    expect(JSON.parse(await page.textContent("#detail-envelope"))).toMatchObject({ channel: "topics/again", event: "task.created" });
    await page.click("#again");
    await page.keyboard.press("Enter");
    await rows(page).nth(1).waitFor();
    await page.getByText("Published as").waitFor();
    await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => (window.copied = text) } }));
    await page.click("#copy-event");
    expect(JSON.parse(await page.evaluate(() => window.copied)).data.text).toBe("folded");
  });

  test("shows the events of an agent at one click", async () => {
    const named = client(service.url, { agentId: "clicked", channels: [] });
    await named.connect();
    const page = await open(`${service.http}/live`);
    await connected(page);
    await named.publish("topics/click", "system.info", "by the agent");
    await publish(await speak(), ["agents/clicked", "message.new", "to the agent"], ["global", "task.created", { agent_id: "clicked", text: "about it" }], ["global", "task.created", "of others"]);
    await rows(page).filter({ hasText: "of others" }).waitFor();
    const button = page.locator("#agents button", { hasText: "clicked" });
    await button.click();
    expect((await page.locator("#rows .row code").allTextContents()).slice(0, 3)).toEqual(['{"agent_id":"clicked","text":"about it"}', '"to the agent"', '"by the agent"']);
    expect(await page.isVisible("#agent-detail")).toBe(true);
    expect(await button.getAttribute("aria-pressed")).toBe("true");
    await button.click();
    await rows(page).filter({ hasText: "of others" }).waitFor();
    expect(await page.isVisible("#agent-detail")).toBe(false);
  });

  test("begins on the first screen of a phone", async () => {
    const page = await open(`${service.http}/live`, { viewport: { width: 360, height: 740 }, hasTouch: true });
    await connected(page);
    await publish(await speak(), ["global", "task.created", "on the phone"]);
    const row = rows(page).filter({ hasText: "on the phone" });
    await row.waitFor();
    expect((await row.boundingBox()).y).toBeLessThan(400);
  });

  test("has some lines of the first screen of a tablet and of a small laptop", async () => {
    const page = await open(`${service.http}/live`);
    await connected(page);
    for (const [width, height] of [[1024, 700], [1180, 768], [1280, 720], [1366, 680], [1440, 900]]) {
      await page.setViewportSize({ width, height });
      const list = await page.locator("#rows").boundingBox();
      const lines = Math.floor((Math.min(list.y + list.height, height) - list.y) / 30);
      const chart = await page.locator("#chart").boundingBox();
      expect([width, height, lines >= 5 || lines, chart.height >= 60 || chart.height]).toEqual([width, height, true, true]);
    }
  });

  test("gives commands to copy where there is nothing yet", async () => {
    const lonely = await start();
    const page = await open(`${lonely.http}/live`);
    await connected(page);
    await page.locator("#agents-title").waitFor();
    await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => (window.copied = text) } }));
    for (const [place, command] of [["#empty", `dcm-ws publish global task.created '{"title": "hello"}' --url ${lonely.url}`], ["#no-agents", `dcm-ws wait --ack --agent-id ann --url ${lonely.url}`]]) {
      await page.locator(place).getByRole("button", { name: "Copy" }).click();
      expect(await page.evaluate(() => window.copied)).toBe(command);
      expect((await page.textContent(`${place} code`)).trim()).toBe(command);
    }
    const speaking = client(lonely.url, { agentId: "ann", channels: [] });
    await speaking.connect();
    await speaking.publish("global", "task.created", "the first");
    await rows(page).filter({ hasText: "the first" }).waitFor();
    await page.locator("#agents button", { hasText: "ann" }).waitFor();
    expect([await page.isVisible("#empty"), await page.isVisible("#no-agents")]).toEqual([false, false]);
    await page.fill("#text", "no such thing");
    await page.click("#empty button >> text=Reset the filter");
    await rows(page).filter({ hasText: "the first" }).waitFor();
    await leave(page);
    await lonely.stop();
  });

  test("remembers the theme", async () => {
    const page = await open(`${service.http}/live`, { colorScheme: "light" });
    await page.click("#theme");
    await page.goto(`${service.http}/dashboard`);
    await page.waitForFunction(() => document.documentElement.dataset.theme === "dark");
  });

  test("counts the events of the log over the time that they took", async () => {
    const page = await open(`${service.http}/live`);
    await page.route(/\/modules\//, (route) => route.fulfill({ path: `../../dcm_ws/web${new URL(route.request().url()).pathname}` }));
    // as text: the test runner would put imports of its own into a function
    const text = await page.evaluate(String.raw`(async () => {
      const { Chart } = await import("/modules/chart.js");
      const [canvas, legend, text] = ["canvas", "ul", "p"].map((name) => document.body.appendChild(document.createElement(name)));
      // one that is over, or the chart could be older than its first event
      const column = Math.floor(Date.now() / 5000) * 5000 - 5000;
      const chart = new Chart(canvas, legend, text, ["task"]);
      for (let n = 0; n < 50; n += 1) chart.count("task", column + 100);
      chart.draw(column + 4900);
      return text.textContent;
    })()`);
    expect(text).toContain("at most 10.4.");
  });
});

/**
 * Sign in with a token that expires soon after `seen` is there.  If a slow machine has not shown it in time, another
 * token lasts longer.
 */
async function signInForMoments(page, seen) {
  for (let seconds = 3; ; seconds *= 3) {
    if (seconds > 3) await page.reload();
    await page.waitForSelector("#sign-in[open]");
    await page.fill("#token", token("watcher", { minutes: seconds / 60 }));
    await page.click("#sign-in .primary");
    const [shown, expired] = [page.locator(seen), page.locator("#banner, #sign-in-error").filter({ hasText: /expired/i })];
    await shown.or(expired).first().waitFor();
    if ((await shown.count()) && !(await expired.first().isVisible())) return;
  }
}

test("a token that has expired is asked for again", async () => {
  const guarded = await start({ production: true });
  await client(guarded.url, { token: token("worker") }).connect();
  const page = await open(`${guarded.http}/live`);
  await signInForMoments(page, '#agents li:has-text("worker")');
  await page.locator("#banner", { hasText: "Token expired" }).waitFor();
  expect(await page.textContent("#banner")).toContain("dcm-ws token NAME");
  // the mouse is where the dialog was, which is above the list
  expect(await page.getAttribute("#pause", "aria-pressed")).toBe("false");
  expect(await page.title()).toBe("⚠ Token expired – dcm-ws live");
  await page.locator("#no-agents", { hasText: "only with a valid token" }).waitFor();
  expect(await page.textContent("#agent-count")).toBe("1");
  await page.locator("#renew").click();
  await page.fill("#token", token("watcher"));
  await page.click("#sign-in .primary");
  await connected(page);
  await page.locator("#banner").waitFor({ state: "hidden" });
  await page.locator("#agents li", { hasText: "worker" }).waitFor();
  expect(await page.title()).toBe("dcm-ws live");
  await leave(page);
  await guarded.stop();
});

describe("a page that is not connected", () => {
  const QUIET = { allowed: DISCONNECTED };

  for (const path of ["/live", "/dashboard"]) {
    test(`${path} says so, since when and why, and recovers by itself`, async () => {
      let mortal = await start();
      const page = await open(mortal.http + path, QUIET);
      const title = await page.title();
      await connected(page);
      const figures = () => page.locator(".kpi p").first().evaluate((figure) => getComputedStyle(figure).color);
      const plain = await figures();
      expect(await page.isVisible("#banner")).toBe(false);
      await mortal.stop();
      await page.locator("#banner [role=alert]", { hasText: /^Disconnected since \d\d:\d\d:\d\d/ }).waitFor();
      expect(await page.textContent("#banner-text")).toMatch(/^Nothing here is current: the service (is restarting|cannot be reached|has stopped)\.$/);
      await page.locator("#banner-next", { hasText: /^for \d+ s, (next attempt in \d+ s|trying to connect)$/ }).waitFor();
      expect(await page.title()).toMatch(/^⚠ Disconnected since .* – dcm-ws (live|dashboard)$/);
      expect(await figures()).not.toBe(plain);
      const spoken = await page.textContent("#banner [role=alert]");
      mortal = await start({ port: mortal.port });
      await connected(page);
      await page.locator("#banner").waitFor({ state: "hidden" });
      expect([await page.title(), await figures()]).toEqual([title, plain]);
      expect(spoken).not.toMatch(/attempt/);
      await leave(page);
      await mortal.stop();
    });

    test(`${path} says that the token has expired, and what to do`, async () => {
      const guarded = await start({ production: true, options: ["--enforce-expiry"] });
      const page = await open(guarded.http + path);
      await signInForMoments(page, '#state[data-state="connected"]');
      await page.locator("#banner [role=alert]", { hasText: /^Signed out since .*the token has expired.*dcm-ws token NAME/ }).waitFor();
      await page.waitForSelector("#sign-in[open]");
      expect(await page.textContent("#sign-in-error")).toContain("expired");
      expect(await page.title()).toMatch(/^⚠ Signed out since /);
      await page.fill("#token", token("viewer"));
      await page.click("#sign-in .primary");
      await connected(page);
      await page.locator("#banner").waitFor({ state: "hidden" });
      await leave(page);
      await guarded.stop();
    });
  }

  test("shows no count or state of the service as if it were current, and does not publish", async () => {
    const mortal = await start();
    const page = await open(`${mortal.http}/live`, QUIET);
    await connected(page);
    await client(mortal.url, { agentId: "ann" }).connect();
    await page.locator("#agents li", { hasText: "ann" }).waitFor();
    closeClients();
    await mortal.stop();
    await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
    const facts = () => page.locator(".facts dd").allTextContents();
    expect(await facts()).toEqual(Array(8).fill("–"));
    expect(await page.textContent("#agent-count")).toMatch(/^as of \d\d:\d\d:\d\d$/);
    expect(await page.isDisabled("#publish-form button")).toBe(true);
    expect(await page.textContent("#published")).toBe("Publishing is disabled: the page is not connected.");
    // what runs every second and every five does not bring them back
    await page.locator("#banner-next", { hasText: /^for ([6-9]|\d\d+) s/ }).waitFor();
    expect(await facts()).toEqual(Array(8).fill("–"));
    await leave(page);
  });

  test("the wall says it in letters of 6 % of the screen", async () => {
    const mortal = await start();
    const page = await open(`${mortal.http}/dashboard`, QUIET);
    await connected(page);
    await mortal.stop();
    await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
    for (const [width, height] of [[1920, 1080], [1280, 720], [3840, 2160]]) {
      await page.setViewportSize({ width, height });
      const size = await page.locator("#banner-title").evaluate((text) => parseFloat(getComputedStyle(text).fontSize));
      expect(size).toBeGreaterThanOrEqual(0.055 * height);
      expect(await page.evaluate(() => document.documentElement.scrollHeight - document.documentElement.clientHeight)).toBe(0);
    }
    await leave(page);
  });

  test("has shapes for its states where colours are the system's", async () => {
    const mortal = await start();
    const page = await open(`${mortal.http}/live`, { ...QUIET, forcedColors: "active" });
    await connected(page);
    const dot = () => page.locator(".dot").evaluate((mark) => [getComputedStyle(mark).backgroundColor, getComputedStyle(mark).borderTopWidth]);
    const filled = await dot();
    expect(filled[1]).toBe("0px");
    const chart = await page.locator(".legend i").evaluateAll((marks) => new Set(marks.map((mark) => getComputedStyle(mark).backgroundColor)).size);
    expect(chart).toBe(8);
    const outline = () => page.locator("#pause").evaluate((button) => getComputedStyle(button).outlineStyle);
    expect(await outline()).toBe("none");
    await page.click("#pause");
    await page.mouse.move(5, 5);
    await page.locator("h1").click();
    expect(await outline()).toBe("solid");
    await mortal.stop();
    await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
    const ring = await dot();
    expect(ring[1]).toBe("2px");
    expect(ring[0]).not.toBe(filled[0]);
    await leave(page);
  });
});

test("figures of any size are drawn and written", async () => {
  // without a database nothing else publishes snapshots
  const lonely = await start();
  const page = await open(`${lonely.http}/dashboard`);
  await connected(page);
  const speaking = client(lonely.url, { channels: [] });
  await speaking.connect();
  const figures = [0, 1e308, -1e308, 1.7e308, -5, 0.1, null, 12];
  for (const figure of figures) {
    const snapshot = { active_sessions: figure, avg_task_duration_ms: figure, active_agents: "many", running_tasks: null };
    await speaking.publish("metrics", "metric.update", snapshot);
    const [shown, duration] = { 0: ["0", "0ms"], 12: ["12", "12ms"], 0.1: ["0.1", "0ms"], [-5]: ["-5", "-5ms"], null: ["–", "–"] }[figure] ?? [`${figure}`.replace("+", "").replace("1.7", "2"), undefined];
    await page.locator('[data-kpi="active_sessions"] p', { hasText: new RegExp(`^${shown}$`) }).waitFor();
    const text = await page.textContent('[data-kpi="avg_task_duration_ms"] p');
    if (duration) expect(text).toBe(duration);
    else expect(text).toMatch(/^-?\de\d+d$/);
  }
  expect(await page.textContent('[data-kpi="active_agents"] p')).toBe("–");
  for (const shape of ["polyline", "polygon"]) {
    const points = await page.getAttribute(`[data-kpi="active_sessions"] ${shape}`, "points");
    const numbers = points.split(/[ ,]/).map(Number);
    expect(numbers.length).toBeGreaterThan(figures.length);
    expect(numbers.every((number) => number >= 0 && number <= 100)).toBe(true);
  }
  // whole on every screen, also the longest ones
  const names = await page.locator(".kpi").evaluateAll((cards) => cards.map((card) => card.dataset.kpi));
  await speaking.publish("metrics", "metric.update", Object.fromEntries(names.map((name) => [name, 99_999])));
  await page.locator('[data-kpi="active_agents"] p', { hasText: "99,999" }).waitFor();
  expect(await page.isVisible(".as-of")).toBe(false);
  for (const [width, height] of [[1920, 1080], [1280, 720], [1024, 600], [900, 500], [390, 844], [3840, 2160]]) {
    await page.setViewportSize({ width, height });
    const cut = await page.evaluate(() => {
      const outside = [];
      for (const card of document.querySelectorAll(".kpi")) {
        const text = document.createRange();
        text.selectNodeContents(card.querySelector("p"));
        const [inner, outer] = [text.getBoundingClientRect(), card.getBoundingClientRect()];
        if (inner.right > outer.right || inner.bottom > outer.bottom || inner.height < 20) outside.push([inner.right - outer.right, inner.bottom - outer.bottom]);
      }
      return outside;
    });
    expect([width, height, cut]).toEqual([width, height, []]);
    expect([width, height, await tooWide(page, "#service :is(dt, dd)")]).toEqual([width, height, []]);
  }
  // the connection is there, and nobody renews the figures
  await page.evaluate(() => {
    const { now } = Date;
    Date.now = () => now() + 16_000;
  });
  await page.locator(".as-of", { hasText: /^Key figures as of \d\d:\d\d:\d\d$/ }).waitFor();
  await leave(page);
  await lonely.stop();
});

test("/dashboard shows the service's own figures and the installation's name", async () => {
  const named = await start({ options: ["--name", "Staging <b>"] });
  const page = await open(`${named.http}/dashboard`, { allowed: DISCONNECTED });
  await connected(page);
  expect(await page.textContent("#name")).toBe("Staging <b>");
  expect(await page.title()).toBe("Staging <b> – dcm-ws dashboard");
  const agent = client(named.url, { agentId: "ann" });
  await agent.connect();
  const figure = (name) => page.locator("#service div", { has: page.locator("dt", { hasText: new RegExp(`^${name}$`) }) }).locator("dd");
  await figure("agents").filter({ hasText: "1" }).waitFor();
  expect(await figure("log").textContent()).toBe("up");
  expect(await figure("database").textContent()).toBe("none");
  expect(await figure("events/s").textContent()).toMatch(/^\d/);
  // nothing makes snapshots without a database
  expect(await page.isVisible("#kpis")).toBe(false);
  for (const [width, height] of [[390, 844], [844, 390], [768, 1024], [1600, 900]]) {
    await page.setViewportSize({ width, height });
    expect([width, height, await tooWide(page, "#service :is(dt, dd)")]).toEqual([width, height, []]);
  }
  await named.stop();
  await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
  expect(new Set(await page.locator("#service dd").allTextContents())).toEqual(new Set(["–"]));
  await leave(page);
});

test("/dashboard shows the key figures", async () => {
  const page = await open(`${service.http}/dashboard`);
  await connected(page);
  await page.waitForFunction(() => [...document.querySelectorAll(".kpi p")].every((figure) => /\d/.test(figure.textContent)));
  expect(await page.locator(".kpi").count()).toBe(8);
});

describe("accessibility", () => {
  const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true };
  let guarded, lonely;
  beforeAll(async () => {
    [guarded, lonely] = await Promise.all([start({ production: true }), start()]);
  });
  afterAll(() => Promise.all([guarded?.stop(), lonely?.stop()]));

  const COLOURS = ["task.created", "subtask.running", "message.new", "agent.heartbeat", "session.created", "system.info", "system.error"];
  let looks = 0;

  /** Open the page with a row in each colour: axe takes three times as long for all that the list can have. */
  async function openFew(options, more = "") {
    const channel = `topics/look-${(looks += 1)}`;
    const page = await open(`${service.http}/live?channel=${encodeURIComponent(channel)}${more}`, options);
    await connected(page);
    const speaking = await speak();
    for (const event of COLOURS) await speaking.publish(channel, event, { agent_id: "ann", text: "look at this", inner: { n: 1 } });
    if (!more) await rows(page).nth(COLOURS.length - 1).waitFor();
    return page;
  }

  async function check(page) {
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(overflow).toBe(0);
    // evaluated by the debugger, which the page's policy does not hold for
    await page.evaluate(AXE);
    // which is off by default
    const { violations } = await page.evaluate(() => window.axe.run({ rules: { "target-size": { enabled: true } } }));
    expect(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)])).toEqual([]);
  }

  async function choose(page) {
    // whose colour differs least from the background of the row that is chosen
    await rows(page).filter({ hasText: "message.new" }).first().click();
    expect(await page.locator("#detail-json").innerText()).toContain('"inner": {\n');
  }

  async function chooseAgent(page) {
    const agent = client(service.url, { agentId: "looked-at", channels: [] });
    await agent.connect();
    await page.locator("#agents button", { hasText: "looked-at" }).click();
    await page.locator("#agent-facts dt").first().waitFor();
  }

  const help = (page) => page.keyboard.press("?");

  for (const [name, options, act] of [
    ["light", { colorScheme: "light" }, choose],
    ["dark", { colorScheme: "dark" }, choose],
    ["on a phone", { colorScheme: "light", ...PHONE }, choose],
    ["on a phone, dark", { colorScheme: "dark", ...PHONE }, choose],
    ["with the colours of the system", { colorScheme: "dark", forcedColors: "active" }, choose],
    ["with an agent chosen", { colorScheme: "light" }, chooseAgent],
    ["the keys", { colorScheme: "light" }, help],
    ["the keys, dark", { colorScheme: "dark" }, help],
  ]) {
    test(`live, ${name}`, async () => {
      const page = await openFew(options);
      await act(page);
      await check(page);
    });
  }

  test("live, paused, where nothing matches", async () => {
    const page = await openFew({ colorScheme: "dark" }, "&text=no+such+thing");
    await page.keyboard.press("p");
    await check(page);
  });

  test("live, with a long list", async () => {
    const page = await open(`${service.http}/live`, { colorScheme: "light" });
    await connected(page);
    const speaking = await speak();
    await Promise.all(Array.from({ length: 150 }, (_, n) => speaking.publish("global", COLOURS[n % COLOURS.length], { text: "look at this", inner: { n } })));
    await rows(page).nth(149).waitFor();
    await choose(page);
    await check(page);
  });

  for (const [name, options] of [
    ["light", { colorScheme: "light" }],
    ["dark", { colorScheme: "dark" }],
    ["on a phone, light", { colorScheme: "light", ...PHONE }],
    ["with the colours of the system", { colorScheme: "light", forcedColors: "active" }],
  ]) {
    test(`dashboard, ${name}`, async () => {
      const page = await open(`${service.http}/dashboard`, options);
      await connected(page);
      await check(page);
    });
  }

  for (const path of ["/live", "/dashboard"]) {
    test(`${path} without a database, where nothing has happened`, async () => {
      const page = await open(lonely.http + path, { colorScheme: "light" });
      await connected(page);
      await page.locator("#kpis").waitFor({ state: "hidden" });
      await check(page);
    });

    test(`${path}, the sign-in dialog`, async () => {
      for (const options of [{ colorScheme: "light" }, { colorScheme: "dark", ...PHONE }]) {
        const page = await open(guarded.http + path, options);
        await page.waitForSelector("#sign-in[open]");
        await page.fill("#token", "not a token");
        await page.click("#sign-in .primary");
        await page.waitForFunction(() => document.querySelector("#sign-in-error").textContent !== "");
        await check(page);
      }
    });
  }

  test("without the service", async () => {
    const mortal = await start();
    const pages = [];
    for (const [path, colorScheme] of [["/live", "light"], ["/live", "dark"], ["/dashboard", "light"], ["/dashboard", "dark"]]) {
      const page = await open(mortal.http + path, { viewport: DESKTOP, colorScheme, allowed: DISCONNECTED });
      await connected(page);
      pages.push(page);
    }
    await mortal.stop();
    for (const page of pages) {
      await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
      await check(page);
    }
  });
});
