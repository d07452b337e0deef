// Resuming, against the real service.
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { WebSocketServer } from "ws";
import { client, closeClients, proxy, start, token, until } from "./running.js";

const TASK = "task.created";
let service;
beforeAll(async () => {
  service = await start({ options: ["--ack-timeout", "0.5", "--retry-interval", "0.1"] });
});
afterAll(() => service?.stop());
afterEach(closeClients);

/** A client that can be cut off, and all that it shows but for the comings and goings of agents. */
async function listener(options = {}, { port } = service) {
  const way = await proxy(port);
  const shown = [];
  const gaps = [];
  const listening = client(way.url, { backoff: { baseMs: 5, maxMs: 20 }, ...options });
  listening.on("event", (event) => event.event.startsWith("agent.") || shown.push(event.data));
  listening.on("gap", (gap) => gaps.push(gap));
  await listening.connect();
  return { way, listening, shown, gaps };
}

async function speaker({ url } = service) {
  const speaking = client(url, { channels: [] });
  await speaking.connect();
  return speaking;
}

/** What a browser keeps, as far as the client needs it. */
function storage(kept = {}) {
  return { kept, getItem: (key) => kept[key] ?? null, setItem: (key, value) => (kept[key] = value) };
}

const count = (most) => Array.from({ length: most }, (_, number) => number);

describe.each([
  ["anonymous", {}],
  ["an agent", { agentId: "ann" }],
  ["an observer", { agentId: "bob", observer: true }],
])("%s", (_, options) => {
  test("gets what was published while it was away, in order and once, whenever it is cut off", async () => {
    const topic = `topics/cut/${options.agentId ?? ""}x`;
    const { way, shown, gaps } = await listener({ channels: [topic, "global"], ...options });
    const speaking = await speaker();
    for (const number of count(400)) {
      await speaking.publish(number % 3 ? topic : "global", number % 2 ? TASK : "session.created", number);
      if (number % 37 === 5) way.cut();
    }
    await until(() => shown.length >= 400, "all 400");
    expect(shown).toEqual(count(400));
    expect(gaps).toEqual([]);
    way.close();
  });
});

test("an agent resumes its own channel, which it never asked for", async () => {
  const { way, shown } = await listener({ agentId: "own", channels: [] });
  const speaking = await speaker();
  await speaking.publish("agents/own", "session.created", 1);
  await until(() => shown.length === 1);
  way.cut();
  await speaking.publish("agents/own", "session.created", 2);
  await until(() => shown.length === 2);
  expect(shown).toEqual([1, 2]);
  way.close();
});

test("a channel that is left brings nothing, and one that is new nothing of before", async () => {
  const { way, listening, shown } = await listener({ channels: ["topics/left"] });
  const speaking = await speaker();
  await speaking.publish("topics/new", TASK, "before");
  await listening.unsubscribe("topics/left");
  await listening.subscribe("topics/new");
  way.cut();
  await speaking.publish("topics/left", TASK, "left");
  await speaking.publish("topics/new", TASK, "new");
  await until(() => shown.length);
  expect(shown).toEqual(["new"]);
  way.close();
});

test("a channel that is refused does not keep the others from resuming", async () => {
  const errors = [];
  const { way, listening, shown, gaps } = await listener({ channels: ["agents/bob", "topics/fine"] });
  listening.on("error", (error) => errors.push([error.channel, error.code]));
  const speaking = await speaker();
  way.cut();
  for (const number of count(20)) await speaking.publish("topics/fine", TASK, number);
  await until(() => shown.length === 20);
  expect(shown).toEqual(count(20));
  expect(gaps).toEqual([]);
  await until(() => errors.length);
  expect(errors).toEqual([["agents/bob", "NOT_AUTHORIZED"]]);
  way.close();
});

test("a service that has restarted is a gap, and the client goes on", async () => {
  const own = await start();
  const { way, listening, shown, gaps } = await listener({ channels: ["topics/again"] }, own);
  const epoch = listening.position.epoch;
  await (await speaker(own)).publish("topics/again", TASK, 1);
  await until(() => shown.length === 1);
  await own.stop();
  const next = await start({ port: own.port });
  await until(() => gaps.length);
  expect(gaps).toMatchObject([{ reason: "epoch", epoch: listening.position.epoch }]);
  expect(listening.position.epoch).not.toBe(epoch);
  await until(() => listening.state === "connected");
  await (await speaker(next)).publish("topics/again", TASK, 2);
  await until(() => shown.length === 2);
  way.cut();
  await (await speaker(next)).publish("topics/again", TASK, 3);
  await until(() => shown.length === 3);
  expect(gaps.length).toBe(1);
  way.close();
  await next.stop();
});

test("what has left the log is a gap, told on the console if nobody listens for it", async () => {
  const small = await start({ options: ["--max-recent-events", "10"] });
  const warned = vi.spyOn(console, "warn").mockImplementation(() => {});
  const way = await proxy(small.port);
  // it does not come back by itself
  const listening = client(way.url, { channels: ["topics/much"], backoff: { baseMs: 3_600_000, maxMs: 3_600_000 }, random: () => 1 });
  await listening.connect();
  way.cut();
  await until(() => listening.state === "waiting");
  const speaking = await speaker(small);
  for (const number of count(30)) await speaking.publish("topics/much", TASK, number);
  await listening.reconnect();
  expect(warned.mock.calls).toEqual([[expect.stringContaining("events are missing (expired)")]]);
  warned.mockRestore();
  way.close();
  await small.stop();
});

test("a server that knows no positions is one to connect to as before, and after one that does it is a gap", async () => {
  const asked = [];
  const old = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await new Promise((open) => old.once("listening", open));
  let greeting = { type: "connected", client_id: "c", timestamp: 1, epoch: "e", pos: 5 };
  old.on("connection", (socket) => {
    socket.on("message", (text) => {
      const { type, id, resume } = JSON.parse(text);
      asked.push(resume ? `${type} ${resume.pos}` : type);
      socket.send(JSON.stringify({ type: "ack", id, success: true, timestamp: 1, subscriptions: ["global"] }));
    });
    socket.send(JSON.stringify(greeting));
  });
  const gaps = [];
  const listening = client(`ws://127.0.0.1:${old.address().port}`, { agentId: "ann" });
  listening.on("gap", (gap) => gaps.push(gap));
  await listening.connect();
  expect(listening.position).toEqual({ epoch: "e", pos: 5 });
  greeting = { type: "connected", client_id: "c", timestamp: 1 };
  await listening.reconnect();
  expect(gaps).toEqual([{ reason: "epoch" }]);
  expect(listening.position).toBe(null);
  await listening.reconnect();
  expect(gaps.length).toBe(1);
  expect(asked).toEqual(["auth", "auth", "auth"]);
  old.close();
});

test("the last events come when it connects first, as far back as the log goes", async () => {
  const own = await start({ options: ["--max-recent-events", "10"] });
  const speaking = await speaker(own);
  for (const number of count(30)) await speaking.publish("topics/last", TASK, number);
  const few = await listener({ channels: ["topics/last"], last: 3 }, own);
  await until(() => few.shown.length === 3);
  const all = await listener({ channels: ["topics/last"], last: 1000, agentId: "ann" }, own);
  await until(() => all.shown.at(-1) === 29);
  expect(few.shown).toEqual([27, 28, 29]);
  expect(all.shown).toEqual(count(30).slice(-all.shown.length));
  expect(all.shown.length).toBeGreaterThan(3);
  expect([...few.gaps, ...all.gaps]).toEqual([]);
  few.way.close();
  all.way.close();
  await own.stop();
});

describe("a storage", () => {
  test("lets another client go on where the first was", async () => {
    const kept = storage();
    const options = { channels: ["topics/kept"], storage: kept, storageKey: "here" };
    const first = await listener(options);
    const speaking = await speaker();
    await speaking.publish("topics/kept", TASK, 1);
    await until(() => first.shown.length === 1);
    first.listening.close();
    expect(JSON.parse(kept.kept.here)).toEqual(first.listening.position);
    await speaking.publish("topics/kept", TASK, 2);
    const second = await listener(options);
    await until(() => second.shown.length);
    expect(second.shown).toEqual([2]);
    first.way.close();
    second.way.close();
  });

  test("has no event whose listeners have not finished", async () => {
    const kept = storage();
    const options = { channels: ["topics/slow"], storage: kept, storageKey: "here" };
    const { way, listening } = await listener(options);
    let finish;
    listening.on("event", ({ data }) => (data === 1 ? new Promise((done) => (finish = done)) : undefined));
    const speaking = await speaker();
    await speaking.publish("topics/slow", "session.created", 1);
    const { pos } = await speaking.publish("topics/slow", "session.created", 2);
    await until(() => listening.position.pos === pos);
    way.cut();
    await until(() => kept.kept.here);
    expect(JSON.parse(kept.kept.here).pos).toBe(pos - 2);
    finish();
    await until(() => JSON.parse(kept.kept.here).pos === pos);
    way.close();
  });

  test("has no event that the user has to acknowledge and has not", async () => {
    const kept = storage();
    const { way, listening } = await listener({ agentId: "late", autoAck: false, channels: ["topics/late", "global"], storage: () => kept, storageKey: "here" });
    const came = [];
    listening.on("event:task.*", (event) => came.push(event));
    const speaking = await speaker();
    const { pos } = await speaking.publish("topics/late", TASK, 1);
    await speaking.publish("topics/late", "session.created", 2);
    await until(() => came.length === 1 && listening.position.pos > pos);
    await until(() => kept.kept.here && JSON.parse(kept.kept.here).pos === pos - 1);
    came[0].ack();
    await until(() => JSON.parse(kept.kept.here).pos > pos);
    way.close();
  });

  test("that the page may not use is an error and nothing worse", async () => {
    const errors = [];
    const storing = client(service.url, { storage: () => { throw new Error("forbidden"); } });
    storing.on("error", (error) => errors.push(error.code));
    await storing.connect();
    storing.close();
    expect(errors).toEqual(["STORAGE_FAILED"]);
  });

  test("with something else in it, or one that fails, is an error and nothing worse", async () => {
    const errors = [];
    const full = { getItem: () => "nonsense", setItem: () => { throw new Error("full"); } };
    const storing = client(service.url, { storage: full, storageKey: "here" });
    storing.on("error", (error) => errors.push([error.code, error.message]));
    await storing.connect();
    storing.close();
    expect(errors).toEqual([
      ["STORAGE_FAILED", expect.stringMatching(/What is stored as "here" is not used/)],
      ["STORAGE_FAILED", expect.stringMatching(/The position is not stored from now on: full/)],
    ]);
  });
});

test("an event that a listener refuses comes again, when it says", async () => {
  const came = [];
  const { way, listening } = await listener({ agentId: "picky", channels: ["topics/refused"] });
  listening.on("event:task.*", (event) => {
    came.push(event.data);
    if (came.length === 1) event.nack(50);
  });
  await (await speaker()).publish("topics/refused", TASK, "once more");
  await until(() => came.length === 2);
  await until(async () => (await service.stats()).pendingDeliveries === 0);
  expect(came).toEqual(["once more", "once more"]);
  way.close();
});

test("a durable agent says so", async () => {
  const { way } = await listener({ agentId: "lasting", durable: true, autoAck: false, channels: ["topics/durable"] });
  const before = (await service.stats()).deliveries.neverAcknowledged;
  await (await speaker()).publish("topics/durable", TASK, 1);
  await until(async () => (await service.stats()).pendingDeliveries === 0);
  expect((await service.stats()).deliveries.neverAcknowledged).toBe(before);
  way.close();
});

test("with a token it resumes in production, too", async () => {
  const production = await start({ production: true });
  const { way, shown, gaps } = await listener({ token: token("ann"), channels: ["topics/safe"] }, production);
  const speaking = client(production.url, { token: token("bob"), channels: [] });
  await speaking.connect();
  for (const number of count(60)) {
    await speaking.publish("topics/safe", "session.created", number);
    if (number % 20 === 5) way.cut();
  }
  await until(() => shown.length === 60);
  expect(shown).toEqual(count(60));
  expect(gaps).toEqual([]);
  way.close();
  await production.stop();
});

test("without a token it resumes where anybody may listen", async () => {
  const open = await start({ production: true, options: ["--anonymous", "listen"] });
  const speaking = client(open.url, { token: token("bob"), channels: [] });
  await speaking.connect();
  for (const number of count(5)) await speaking.publish(number ? "topics/open" : "agents/bob", "session.created", number);
  const { way, shown, gaps } = await listener({ channels: ["topics/open", "global"], last: 100 }, open);
  for (const number of [5, 6, 7, 8, 9]) {
    await speaking.publish("topics/open", "session.created", number);
    if (number === 6) way.cut();
  }
  await until(() => shown.length === 9);
  expect(shown).toEqual(count(10).slice(1));
  expect(gaps).toEqual([]);
  way.close();
  await open.stop();
});
