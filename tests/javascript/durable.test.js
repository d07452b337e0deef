// The client over crashes of a service that keeps its log in the database, as the embedded default does.
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { client, closeClients, start, until } from "./running.js";

const CHANNEL = "topics/lasting";
let data, service;
beforeAll(async () => {
  data = mkdtempSync(`${tmpdir()}/dcm-ws-durable-`);
  // where root runs this, PostgreSQL has an account of its own
  chmodSync(data, 0o755);
  service = await start({ data });
});
afterEach(closeClients);
afterAll(async () => {
  // it stops the PostgreSQL that its predecessors left behind
  await service?.stop();
  rmSync(data, { recursive: true, force: true });
});

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** Tracked events and others. */
const nameOf = (number) => (number % 2 ? "task.created" : "session.created");

/** Publish a number until that is acknowledged: with the same key, it is published once. */
async function publish(speaking, number) {
  await until(
    () => speaking.publish(CHANNEL, nameOf(number), number, { key: `number ${number}` }).catch(() => undefined),
    `the publish of ${number}`,
  );
}

/** Publish numbers in SQL, which needs the database only. */
function commit(from, to) {
  const name = "case n % 2 when 1 then 'task.created' else 'session.created' end";
  return service.sql(`select dcm_ws.publish('${CHANNEL}', ${name}, n::text) from generate_series(${from}, ${to - 1}) n`);
}

async function killAndRestart(meanwhile) {
  await service.stop("SIGKILL");
  await meanwhile();
  service = await start({ data, port: service.port });
}

/** Wait until acks are in the database: a crash may lose those of the last second, and their events come again. */
async function saveAcks() {
  await until(async () => (await service.stats()).pendingDeliveries === 0, "every ack");
  const { flushes } = (await service.stats()).journal;
  // the first may have begun before the last ack came
  await until(async () => (await service.stats()).journal.flushes >= flushes + 2, "two more flushes");
}

/** An agent that goes on from what is in `kept`, and what it shows. */
async function agent(kept) {
  const storage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => (kept[key] = value) };
  const listening = client(service.url, { agentId: "ann", durable: true, channels: [CHANNEL], storage, storageKey: "here" });
  const shown = [];
  const gaps = [];
  listening.on("event", (event) => event.channel === CHANNEL && shown.push([event.data, event.pos]));
  listening.on("gap", (gap) => gaps.push(gap));
  await listening.connect();
  return { listening, shown, gaps };
}

/** Expect that each number was shown once, in the order of the log, and no gap. */
function expectEachOnce({ shown, gaps }, from, to) {
  const positions = shown.map(([, pos]) => pos);
  expect(shown.map(([number]) => number).sort((one, other) => one - other)).toEqual(numbers(from, to));
  expect(positions).toEqual([...positions].sort((one, other) => one - other));
  expect(gaps).toEqual([]);
}

test("an agent with a storage resumes over kill -9 of the service: nothing is missing, and nothing comes twice", async () => {
  const kept = {};
  const first = await agent(kept);
  const { epoch } = first.listening.position;
  const speaking = client(service.url, { agentId: "speaker", observer: true, channels: [] });
  await speaking.connect();
  for (const number of numbers(0, 20)) await publish(speaking, number);
  // some of these have no answer when the service is killed
  const unanswered = numbers(20, 40).map((number) => publish(speaking, number));
  await killAndRestart(() => commit(40, 60));
  await Promise.all(unanswered);
  // and again, as a program does that ended before it had the answers
  for (const number of numbers(20, 40)) await publish(speaking, number);
  for (const number of numbers(60, 80)) await publish(speaking, number);
  await until(() => first.shown.length >= 80, "all 80");
  await saveAcks();
  expectEachOnce(first, 0, 80);

  // the program ends, and so does the service; another program has nothing but the storage
  first.listening.close();
  speaking.close();
  await killAndRestart(() => commit(80, 100));
  const second = await agent(kept);
  await until(() => second.shown.length >= 20, "the other 20");
  await commit(100, 101);
  await until(() => second.shown.some(([number]) => number === 100), "the last one");
  expectEachOnce(second, 80, 101);
  expect(second.listening.position.epoch).toBe(epoch);
});
