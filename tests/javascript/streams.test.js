// Channels read over HTTP: with the client of Durable Streams and with the EventSource of a browser, over restarts.
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stream } from "@durable-streams/client";
import { launch } from "./browser.js";
import { start, until } from "./running.js";

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

let data, service;
beforeAll(async () => {
  data = mkdtempSync(`${tmpdir()}/dcm-ws-streams-`);
  // where root runs this, PostgreSQL has an account of its own
  chmodSync(data, 0o755);
  service = await start({ data, options: ["--long-poll", "2"] });
});
afterAll(async () => {
  await service?.stop();
  rmSync(data, { recursive: true, force: true });
});

/** Publish numbers in SQL, which needs the database only. */
const commit = (channel, from, to) =>
  service.sql(`select dcm_ws.publish('${channel}', 'task.created', n::text) from generate_series(${from}, ${to - 1}) n`);

async function restart(signal, meanwhile = async () => {}) {
  await service.stop(signal);
  await meanwhile();
  service = await start({ data, port: service.port, options: ["--long-poll", "2"] });
}

/** Read a channel until it has had `most` events; where the client gives up, go on as its user would. */
async function read(channel, live, most, got = []) {
  let offset = "-1";
  const url = `${service.http}/v1/streams/${channel}`;
  while (got.length < most) {
    try {
      const response = await stream({ url, offset, live, json: true, sseResilience: { logWarnings: false } });
      if (live === false) {
        got.push(...(await response.json()));
        offset = response.offset;
        await new Promise((done) => setTimeout(done, 50));
        continue;
      }
      response.subscribeJson((batch) => {
        got.push(...batch.items);
        ({ offset } = batch);
        if (got.length >= most) response.cancel();
      });
      await response.closed;
    } catch (error) {
      // the connection was cut
      if (error.status === 410) throw error;
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  return got;
}

for (const live of [false, "long-poll", "sse"]) {
  test(`a client in mode ${live || "catch-up"} misses nothing over a restart and a crash`, async () => {
    const channel = `topics/${live || "pages"}`;
    const got = [];
    const reading = read(channel, live, 3000, got);
    await commit(channel, 0, 1000);
    await until(() => got.length >= 1000, "what was published before the restart");
    await restart("SIGTERM");
    await commit(channel, 1000, 2000);
    await until(() => got.length >= 2000, "what was published after the restart");
    await restart("SIGKILL", () => commit(channel, 2000, 2500));
    await commit(channel, 2500, 3000);
    await reading;
    expect(got.map((event) => event.data)).toEqual(numbers(0, 3000));
    expect(got.every((event) => event.channel === channel)).toBe(true);
  });
}

test("an EventSource in a browser goes on where it was, after a restart", async () => {
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${service.http}/live`);
    await page.evaluate(() => {
      window.got = [];
      window.source = new EventSource("/v1/streams/topics/browser");
      window.source.onmessage = (event) => window.got.push(JSON.parse(event.data).data);
      return new Promise((done) => (window.source.onopen = done));
    });
    const got = () => page.evaluate(() => window.got);
    await commit("topics/browser", 0, 10);
    await until(async () => (await got()).length >= 10, "what was published before the crash");
    await restart("SIGKILL", () => commit("topics/browser", 10, 20));
    await commit("topics/browser", 20, 30);
    await until(async () => (await got()).length >= 30, "what was published meanwhile");
    expect(await got()).toEqual(numbers(0, 30));
    await page.evaluate(() => window.source.close());
  } finally {
    await browser.close();
  }
});

test("an EventSource is told of a gap, and goes on", async () => {
  const memory = await start();
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${memory.http}/live`);
    await page.evaluate(() => {
      window.gaps = [];
      window.source = new EventSource("/v1/streams/topics/browser");
      window.source.addEventListener("gap", (event) => window.gaps.push(JSON.parse(event.data).reason));
      return new Promise((done) => (window.source.onopen = done));
    });
    await memory.stop();
    const again = await start({ port: memory.port });
    // the log in memory is another one
    await until(() => page.evaluate(() => window.gaps.length), "the gap");
    expect(await page.evaluate(() => window.gaps)).toEqual(["epoch"]);
    await again.stop();
  } finally {
    await browser.close();
  }
});
