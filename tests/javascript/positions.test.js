// How the client keeps its position and resumes, against the real service.
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { client, closeClients, proxy, start, token, until } from "./running.js";

let service;
beforeAll(async () => {
  service = await start();
});
afterAll(() => service.stop());

const proxies = [];
afterEach(() => {
  closeClients();
  for (const way of proxies.splice(0)) way.close();
  vi.restoreAllMocks();
});

async function way() {
  const made = await proxy(service.port);
  proxies.push(made);
  return made;
}

async function speak(url = service.url) {
  const speaking = client(url, { channels: [] });
  await speaking.connect();
  return speaking;
}

/** Counts the events of a client by id. */
function count(listening, shown = new Map()) {
  listening.on("event", (event) => shown.set(event.id, (shown.get(event.id) ?? 0) + 1));
  return shown;
}

/** Cut a connection, and wait until the client knows. */
async function cutOff(listening, path) {
  let end = () => {};
  const ended = listening.state === "connected" && new Promise((done) => (end = listening.on("state", (state) => state === "waiting" && done())));
  path.cut();
  await ended;
  end();
}

const connected = (listening) => until(() => listening.state === "connected");

/** Numbers from 0 up to 1 that are the same for the same seed (mulberry32). */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const KINDS = { anonymous: () => ({}), agent: (seed) => ({ agentId: `agent-${seed}` }), observer: () => ({ observer: true }) };

describe("whatever happens to its connections", () => {
  const cases = Object.keys(KINDS).flatMap((kind) => Array.from({ length: 8 }, (_, seed) => [kind, seed + 1]));
  test.each(cases)("%s %i gets each event once, in order, and none from before a subscription", async (kind, seed) => {
    const random = seeded(seed * 7919 + kind.length);
    const below = (most) => Math.floor(random() * most);
    const names = ["a", "b", "c"].map((name) => `topics/${kind}-${seed}-${name}`);
    const path = await way();
    const speaking = await speak();
    const wanted = new Set([...names.slice(0, 1 + below(2)), ...(below(2) ? ["global"] : [])]);
    const listening = client(path.url, { channels: wanted, backoff: { baseMs: 20, maxMs: 20 }, ...KINDS[kind](seed) });
    const shown = [];
    const gaps = [];
    listening.on("event", (event) => shown.push([event.id, event.origin ?? event.channel]));
    listening.on("gap", (gap) => gaps.push(gap));
    let changes = 0;
    listening.on("state", () => (changes += 1));
    await listening.connect();
    const due = [];
    const undue = new Map();
    const publish = async () => {
      const channel = names[below(3)];
      const event = below(2) ? "task.created" : "session.created";
      const [wasConnected, before] = [listening.state === "connected", changes];
      const { message_id: id, pos } = await speaking.publish(channel, event, seed);
      if (wanted.has(channel) || wanted.has("global")) due.push([id, channel]);
      // until a new connection has left `global`, it is sent everything there, and an agent owes acks for what is tracked
      else if (kind !== "agent" || event === "session.created" || (wasConnected && changes === before)) undue.set(id, pos);
    };
    for (let step = 0; step < 40; step += 1) {
      const dice = below(12);
      if (dice < 7) await publish();
      else if (dice < 8) path.cut();
      else if (dice < 9) await cutOff(listening, path);
      else if (dice < 10) await connected(listening);
      else if (dice < 11) await new Promise((done) => setTimeout(done, below(30)));
      else if (wanted.size < 3) {
        await connected(listening);
        const channel = names.find((name) => !wanted.has(name));
        if (!(await listening.subscribe(channel).catch(() => undefined))) break;
        wanted.add(channel);
        // it has one position for all channels: if it still catches up, the new channel begins there, too
        const { pos: place } = listening.position;
        for (const [id, pos] of undue) if (pos > place) undue.delete(id);
      }
    }
    await connected(listening);
    await until(() => due.every(([id]) => shown.some(([other]) => other === id)), "every event");
    const ids = shown.map(([id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.filter((id) => undue.has(id))).toEqual([]);
    for (const name of names) {
      const expected = due.filter(([, channel]) => channel === name).map(([id]) => id);
      expect(shown.filter(([id, channel]) => channel === name && expected.includes(id)).map(([id]) => id)).toEqual(expected);
    }
    expect(gaps).toEqual([]);
  });
});

describe("resuming", () => {
  test("a channel that is wanted while the client is away brings nothing of before", async () => {
    const path = await way();
    const listening = client(path.url, { channels: ["topics/kept"], backoff: { baseMs: 300, maxMs: 300 }, random: () => 1 });
    const shown = count(listening);
    await listening.connect();
    await cutOff(listening, path);
    const speaking = await speak();
    const before = await speaking.publish("topics/late", "session.created");
    listening.subscribe("topics/late");
    await connected(listening);
    const after = await speaking.publish("topics/late", "session.created");
    await until(() => shown.has(after.message_id));
    expect(shown.has(before.message_id)).toBe(false);
  });

  test("an agent resumes with its authentication, and anybody else with a request", async () => {
    for (const [options, types] of [
      [{ agentId: "one-pass" }, ["unsubscribe", "auth"]],
      [{}, ["unsubscribe", "resume"]],
    ]) {
      const path = await way();
      const listening = client(path.url, { channels: ["global", "topics/pass"], ...options });
      await listening.connect();
      const sent = vi.spyOn(listening, "send");
      await cutOff(listening, path);
      await connected(listening);
      expect(sent.mock.calls.map(([message]) => message.type)).toEqual(types);
      const { epoch, pos, channels } = sent.mock.calls[1][0].resume ?? sent.mock.calls[1][0];
      expect([typeof epoch, typeof pos, channels.includes("topics/pass")]).toEqual(["string", "number", true]);
    }
  });

  test("a channel that the user leaves meanwhile is not resumed", async () => {
    const path = await way();
    const listening = client(path.url, { channels: ["topics/left", "topics/kept"] });
    const shown = count(listening);
    await listening.connect();
    await cutOff(listening, path);
    listening.unsubscribe("topics/left");
    const speaking = await speak();
    const left = await speaking.publish("topics/left", "task.created");
    const kept = await speaking.publish("topics/kept", "task.created");
    await until(() => shown.has(kept.message_id));
    await listening.ping();
    expect(shown.has(left.message_id)).toBe(false);
  });

  test("another agent does not get what the first one has missed", async () => {
    const path = await way();
    let name = "first";
    // it does not reconnect by itself: what comes after the server has greeted it is for the second agent, too
    const backoff = { baseMs: 60_000, maxMs: 60_000 };
    const listening = client(path.url, { channels: ["topics/owned"], token: () => token(name, { secret: "dcm-dev-secret-change-me" }), backoff, random: () => 1 });
    const shown = count(listening);
    const speaking = await speak();
    await listening.connect();
    await cutOff(listening, path);
    name = "second";
    const missed = await speaking.publish("topics/owned", "session.created");
    await listening.reconnect();
    const next = await speaking.publish("topics/owned", "session.created");
    await until(() => shown.has(next.message_id));
    expect([listening.agentId, shown.has(missed.message_id)]).toEqual(["second", false]);
  });
});
