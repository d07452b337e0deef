// The client against the real service, by real sockets.
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { DCMClient, DCMError, isEvent } from "../../dcm_ws/web/dcm-ws.js";
import { client, closeClients, proxy, start, token, until } from "./running.js";

const TASK = "task.created";
let service;
beforeAll(async () => {
  // it gives nothing up while a slow machine has not acknowledged it yet
  service = await start({ options: ["--ack-timeout", "0.3", "--retry-interval", "0.1", "--max-attempts", "1000"] });
});
afterAll(() => service?.stop());
afterEach(closeClients);

/** Both ends of a topic, and what came to the one that listens. */
async function pair(channel, options, { url } = service) {
  const came = [];
  const listening = client(url, { channels: [channel], ...options });
  listening.on("event", (event) => came.push(event));
  const speaking = client(url, { channels: [] });
  await Promise.all([listening.connect(), speaking.connect()]);
  return { listening, speaking, came };
}

describe("asking", () => {
  test("publishing is answered with the id of the event that others get", async () => {
    const { speaking, came } = await pair("topics/answers");
    const answer = await speaking.publish("topics/answers", "system.info", { n: 1 });
    await until(() => came.length);
    expect(came).toMatchObject([{ id: answer.message_id, channel: "topics/answers", event: "system.info", data: { n: 1 } }]);
  });

  test("a publish that is repeated with the same key, also on another connection, publishes nothing", async () => {
    const { came } = await pair("topics/once");
    const [one, again] = [1, 2].map(() => client(service.url, { channels: [], agentId: "once", observer: true }));
    await Promise.all([one.connect(), again.connect()]);
    const first = await one.publish("topics/once", "task.created", 1, { key: "k" });
    const second = await again.publish("topics/once", "task.created", 2, { key: "k" });
    expect([second.message_id, second.pos, second.duplicate]).toEqual([first.message_id, first.pos, true]);
    expect(first.duplicate).toBeUndefined();
    await one.publish("topics/once", "task.created", 3, { key: "another" });
    await until(() => came.length === 2);
    expect(came.map(({ data }) => data)).toEqual([1, 3]);
    await expect(again.publish("topics/once", "task.created", 4, { key: "x".repeat(129) })).rejects.toMatchObject({ code: "INVALID_MESSAGE" });
  });

  test("what the server refuses is an error with its code", async () => {
    const asking = client(service.url);
    await asking.connect();
    await expect(asking.subscribe("nonsense")).rejects.toMatchObject({ name: "DCMError", code: "INVALID_CHANNEL" });
    await expect(asking.subscribe("agents/bob")).rejects.toMatchObject({ code: "NOT_AUTHORIZED" });
    await expect(asking.publish("global", "no.such", 1)).rejects.toMatchObject({ code: "INVALID_EVENT" });
    expect(asking.channels).toEqual(["global", "agents/bob"]);
    expect(await asking.ping()).toBeGreaterThan(0);
  });

  test("without a connection it fails at once, and a subscription waits", async () => {
    const asking = client(service.url);
    await expect(asking.publish("global", "system.info")).rejects.toMatchObject({ code: "NOT_CONNECTED" });
    await expect(asking.ping()).rejects.toMatchObject({ code: "NOT_CONNECTED" });
    expect(await asking.subscribe("topics/later")).toBeUndefined();
    await asking.connect();
    expect((await service.channels())["topics/later"]).toBe(1);
  });

  test("global is left where it is not wanted", async () => {
    const asking = client(service.url, { channels: [] });
    await asking.connect();
    expect((await service.channels()).global).toBeUndefined();
    await asking.subscribe("topics/mine");
    await asking.unsubscribe("topics/mine");
    expect((await service.channels())["topics/mine"]).toBeUndefined();
  });

  test.runIf(globalThis.WebSocket)("the runtime's own WebSocket will do", async () => {
    const native = client(service.url, { WebSocket: undefined });
    await native.connect();
    expect(await native.ping()).toBeGreaterThan(0);
  });

  test("wrong options are named", () => {
    expect(() => new DCMClient(service.url, { tokn: "x", WebSocket })).toThrow("Unknown option: tokn");
    expect(() => new DCMClient("ftp://127.0.0.1/", { WebSocket })).toThrow("Not the address of a WebSocket");
    expect(() => client(service.url).on("events", () => {})).toThrow("Unknown event events");
  });
});

describe("a close", () => {
  test("is named, with its code and its reason, in every error that it causes", async () => {
    const asking = client(service.url, { channels: [], backoff: { baseMs: 60_000 }, random: () => 1 });
    await asking.connect();
    const publishing = ["x".repeat(3_000_000), 1, 2].map((data) => asking.publish("topics/large", "system.info", data));
    for (const result of await Promise.allSettled([...publishing, asking.ping()])) {
      expect(result.reason).toMatchObject({ code: "NOT_CONNECTED", details: { code: 1009 } });
      expect(result.reason.message).toBe("Connection closed: 1009 Message too large; there was no answer yet");
    }
    await expect(asking.publish("topics/large", "system.info")).rejects.toThrow("There is no connection: Connection closed: 1009 Message too large");
  });
});

describe("events", () => {
  // one that sends nothing again, however long an ack takes
  let patient;
  beforeAll(async () => {
    patient = await start({ options: ["--ack-timeout", "3600"] });
  });
  afterAll(() => patient?.stop());

  test("listeners choose by channel and by name", async () => {
    const { listening, speaking } = await pair("topics/choice");
    const heard = [];
    listening.on("event:task.*", (event) => heard.push(["task.*", event.event]));
    listening.on("event:system.info", (event) => heard.push(["system.info", event.event]));
    const end = listening.on("channel:topics/*", (event) => heard.push(["topics/*", event.event]));
    listening.on("channel:topics/other", () => heard.push(["never"]));
    await speaking.publish("topics/choice", TASK, 1);
    await speaking.publish("topics/choice", "system.info", 1);
    await until(() => heard.length === 4);
    end();
    await speaking.publish("topics/choice", "system.info", 1);
    await until(() => heard.length === 5);
    expect(heard).toEqual([
      ["task.*", TASK],
      ["topics/*", TASK],
      ["system.info", "system.info"],
      ["topics/*", "system.info"],
      ["system.info", "system.info"],
    ]);
  });

  test("integers beyond 2^53 are whole in the raw text, and with a parser that knows them", async () => {
    const big = '{"id":9007199254740993,"list":[-9007199254740993,1,2.5,1e300],"text":"9007199254740993"}';
    const exact = (text) =>
      JSON.parse(text.replace(/("(?:[^"\\]|\\.)*")|(-?\d+)(?![\d.eE])/g, (all, string, digits) => (string || Number.isSafeInteger(Number(digits)) ? all : `"big:${digits}"`)), (_, value) =>
        typeof value === "string" && value.startsWith("big:") ? BigInt(value.slice(4)) : value,
      );
    const { came } = await pair("topics/big");
    const careful = client(service.url, { channels: ["topics/big"], parse: exact });
    const whole = [];
    careful.on("event", (event) => whole.push(event));
    await careful.connect();
    // a client that sends the text as it is
    const speaking = new WebSocket(service.url);
    await new Promise((open) => speaking.once("open", open));
    speaking.send(`{"type":"publish","channel":"topics/big","event":"${TASK}","data":${big}}`);
    await until(() => came.length && whole.length);
    speaking.close();
    expect(came[0].data.id).toBe(9007199254740992);
    expect(came[0].raw).toContain(`"data":${big}`);
    expect(JSON.stringify(came[0])).not.toContain('"raw"');
    expect({ ...came[0] }).not.toHaveProperty("raw");
    expect(whole[0].data).toEqual({ id: 9007199254740993n, list: [-9007199254740993n, 1, 2.5, 1e300], text: "9007199254740993" });
    expect(whole[0].raw).toBe(came[0].raw);
  });

  test("an event that comes on two channels is one event", async () => {
    const { listening, speaking, came } = await pair("topics/both");
    await listening.subscribe("global");
    const onGlobal = [];
    listening.on("channel:global", (event) => onGlobal.push(event.data));
    await speaking.publish("topics/both", TASK, "once");
    await until(() => onGlobal.length);
    expect(onGlobal).toEqual(["once"]);
    expect(came.filter((event) => event.event === TASK).map((event) => event.channel)).toEqual(["topics/both"]);
  });

  test("an event that comes on two channels is acknowledged once", async () => {
    const { listening, speaking, came } = await pair("topics/once", {}, patient);
    await listening.subscribe("global");
    const metric = async () => Number(/messages_received_total\{type="ack"\} (\d+)/.exec(await (await fetch(`${patient.http}/metrics`)).text())[1]);
    const before = await metric();
    await speaking.publish("topics/once", TASK, 1);
    await until(() => came.length);
    await listening.ping();
    expect((await metric()) - before).toBe(1);
    expect((await patient.stats()).pendingDeliveries).toBe(0);
  });

  test("an observer acknowledges nothing and owes nothing", async () => {
    const { listening, speaking, came } = await pair("topics/observed", { observer: true, agentId: "watched" }, patient);
    const before = await patient.stats();
    expect(before.observers).toBe(1);
    expect(before.agentStats).toEqual({});
    await speaking.publish("topics/observed", TASK, 1);
    await until(() => came.length);
    came[0].ack();
    await listening.ping();
    const after = await patient.stats();
    expect(after.pendingDeliveries).toBe(0);
    expect(after.refusals).toEqual(before.refusals);
    expect(after.deliveries.acked).toBe(before.deliveries.acked);
  });

  test("a tracked event is acknowledged when its listener is done, and not before", async () => {
    const { listening, speaking, came } = await pair("topics/acks");
    let done;
    listening.on("event", () => new Promise((resolve) => (done = resolve)));
    const { acked } = (await service.stats()).deliveries;
    await speaking.publish("topics/acks", TASK, 1);
    // sent again meanwhile, which nobody is told
    await until(async () => (await service.stats()).deliveries.retried > 0 && done);
    expect((await service.stats()).deliveries.acked).toBe(acked);
    done();
    await until(async () => (await service.stats()).deliveries.acked === acked + 1);
    expect(came.length).toBe(1);
  });

  test("an event whose listener failed comes again", async () => {
    const { listening, speaking } = await pair("topics/failing");
    const errors = [];
    let calls = 0;
    listening.on("error", (error) => errors.push(error.code));
    listening.on("event", async () => {
      calls += 1;
      if (calls === 1) throw new Error("not now");
    });
    await speaking.publish("topics/failing", TASK, 1);
    await until(async () => calls === 2 && (await service.stats()).pendingDeliveries === 0);
    expect(errors).toEqual(["LISTENER_FAILED"]);
  });

  test("an event that fails on one channel comes once more, and not on the other first", async () => {
    const { listening, speaking } = await pair("topics/failing-twice");
    await listening.subscribe("global");
    let calls = 0;
    listening.on("event:task.*", async () => {
      calls += 1;
      if (calls === 1) throw new Error("not now");
    });
    const { retried } = (await service.stats()).deliveries;
    await speaking.publish("topics/failing-twice", TASK, 1);
    await until(async () => (await service.stats()).deliveries.retried > retried && (await service.stats()).pendingDeliveries === 0);
    expect(calls).toBe(2);
  });

  test("by hand", async () => {
    const { acked } = (await patient.stats()).deliveries;
    const { speaking, came } = await pair("topics/hand", { autoAck: false }, patient);
    await speaking.publish("topics/hand", TASK, 1);
    await until(() => came.length);
    expect((await patient.stats()).pendingDeliveries).toBe(1);
    came[0].ack();
    await until(async () => (await patient.stats()).pendingDeliveries === 0);
    expect((await patient.stats()).deliveries.acked).toBe(acked + 1);
    expect(JSON.parse(JSON.stringify(came[0]))).not.toHaveProperty("ack");
  });
});

describe("coming back", () => {
  test("a connection that is cut is made again, with its subscriptions", async () => {
    const way = await proxy(service.port);
    const states = [];
    const listening = client(way.url, { channels: ["topics/cut"] });
    const came = [];
    listening.on("event", (event) => came.push(event.data));
    listening.on("state", (state) => states.push(state));
    await listening.connect();
    const unanswered = listening.ping();
    way.cut();
    await expect(unanswered).rejects.toMatchObject({ code: "NOT_CONNECTED" });
    await until(() => states.filter((state) => state === "connected").length === 2);
    const speaking = client(service.url, { channels: [] });
    await speaking.connect();
    await speaking.publish("topics/cut", "system.info", "after");
    await until(() => came.length);
    expect(came).toEqual(["after"]);
    expect(states).toEqual(["connecting", "connected", "waiting", "connecting", "connected"]);
    listening.close();
    way.close();
  });

  test("a restart of the service is survived", async () => {
    let mortal = await start();
    const listening = client(mortal.url, { channels: ["topics/restart"] });
    const came = [];
    const closes = [];
    listening.on("event", (event) => came.push(event.data));
    listening.on("state", (state) => state === "waiting" && closes.push(listening.lastClose.code));
    await listening.connect();
    await mortal.stop();
    await until(() => closes.length);
    expect(closes[0]).toBe(1012);
    mortal = await start({ port: mortal.port });
    await until(() => listening.state === "connected");
    await listening.publish("topics/restart", "system.info", "again");
    await until(() => came.length);
    listening.close();
    expect(listening.state).toBe("closed");
    await mortal.stop();
  });

  test("an agent gets what it missed", async () => {
    const way = await proxy(service.port);
    const options = { agentId: "ann", channels: ["topics/missed"], backoff: { baseMs: 400, maxMs: 400 }, random: () => 0.99 };
    const listening = client(way.url, options);
    const came = [];
    listening.on("event:task.*", (event) => came.push(event.data));
    await listening.connect();
    expect(listening.agentId).toBe("ann");
    const speaking = client(service.url, { channels: [] });
    await speaking.connect();
    way.cut();
    await until(async () => !((await service.channels())["agents/ann"] > 0));
    await speaking.publish("topics/missed", TASK, "while away");
    await until(() => came.length);
    expect(came).toEqual(["while away"]);
    listening.close();
    way.close();
  });

  test("a channel that was left while away stays left", async () => {
    const way = await proxy(service.port);
    const leaving = client(way.url, { agentId: "leaver", channels: ["topics/left", "topics/kept"], backoff: { baseMs: 300, maxMs: 300 }, random: () => 0.99 });
    await leaving.connect();
    way.cut();
    await until(() => leaving.state === "waiting");
    await leaving.unsubscribe("topics/left");
    await until(() => leaving.state === "connected");
    const channels = await service.channels();
    expect([channels["topics/left"], channels["topics/kept"]]).toEqual([undefined, 1]);
    leaving.close();
    way.close();
  });

  test("many channels are subscribed to within the server's rate limit", async () => {
    const strict = await start({ options: ["--rate-limit", "200/s", "--rate-burst", "50"] });
    const channels = Array.from({ length: 150 }, (_, n) => `topics/many-${n}`);
    const errors = [];
    const many = client(strict.url, { channels });
    many.on("error", (error) => errors.push(error.code));
    await many.connect();
    expect(Object.keys(await strict.channels()).length).toBe(150);
    expect(errors).toEqual([]);
    await strict.stop();
  });

  test("what is wanted while the client is still subscribing is settled too", async () => {
    // it takes a second at least, so that there is time
    const strict = await start({ options: ["--rate-limit", "100/s", "--rate-burst", "50"] });
    const changing = client(strict.url, { channels: Array.from({ length: 150 }, (_, n) => `topics/many-${n}`) });
    const connecting = changing.connect();
    await until(async () => (await strict.channels())["topics/many-0"]);
    expect(changing.state).toBe("connecting");
    await changing.subscribe("topics/late");
    await changing.unsubscribe("topics/many-0");
    await connecting;
    const channels = await strict.channels();
    expect([channels["topics/late"], channels["topics/many-0"]]).toEqual([1, undefined]);
    await strict.stop();
  });

  test("subscribing may take longer than connecting may", async () => {
    const strict = await start({ options: ["--rate-limit", "10/s", "--rate-burst", "10"] });
    const slow = client(strict.url, { channels: Array.from({ length: 50 }, (_, n) => `topics/many-${n}`), connectTimeoutMs: 3000 });
    await slow.connect();
    expect(slow.lastClose).toBe(null);
    expect(Object.keys(await strict.channels()).length).toBe(50);
    await strict.stop();
  });

  test("nobody need wait for a connection that is given up", async () => {
    const given = client("ws://127.0.0.1:1/ws");
    given.connect();
    given.close();
    // an unhandled rejection would end the run
    await new Promise((done) => setTimeout(done, 0));
    expect(given.state).toBe("closed");
  });

  test("a server that is not there is tried again and again, ever more slowly", async () => {
    const delays = [];
    const trying = client("ws://127.0.0.1:1/ws", { backoff: { baseMs: 4, maxMs: 64 }, random: () => 0.999 });
    const all = new Promise((done) => {
      trying.on("state", (state) => state === "waiting" && delays.push(Math.round(trying.retryAt - Date.now())) === 7 && done());
    });
    // the timers go on, and the time of day does not: nothing is between the delay and the moment at which it ends
    vi.useFakeTimers({ toFake: ["Date"] });
    try {
      trying.connect().catch(() => {});
      await all;
    } finally {
      vi.useRealTimers();
    }
    trying.close();
    expect(delays.slice(0, 7)).toEqual([4, 8, 16, 32, 64, 64, 64]);
  });

  test("closing ends it, and connecting begins anew", async () => {
    const one = client(service.url);
    await one.connect();
    one.close();
    expect(one.state).toBe("closed");
    await one.connect();
    expect(one.state).toBe("connected");
    const waiting = client("ws://127.0.0.1:1/ws");
    const connecting = waiting.connect();
    waiting.close();
    await expect(connecting).rejects.toMatchObject({ code: "CLOSED" });
  });
});

describe("production", () => {
  let guarded;
  beforeAll(async () => {
    guarded = await start({ production: true, options: ["--auth-timeout", "3", "--enforce-expiry"] });
  });
  afterAll(() => guarded?.stop());

  test("a token, or what gets one, opens", async () => {
    const first = client(guarded.url, { token: token("ann") });
    const second = client(guarded.url, { token: async () => token("bob") });
    await Promise.all([first.connect(), second.connect()]);
    expect([first.agentId, second.agentId]).toEqual(["ann", "bob"]);
  });

  test.each(["équipe", "general purpose", 'a "b" \\ <script>', "🚀/🚀"])("the agent %s connects by token", async (name) => {
    const own = client(guarded.url, { token: token(name), channels: [`topics/${name}`] });
    await own.connect();
    expect(own.agentId).toBe(name);
    const heard = new Promise((resolve) => own.on(`channel:topics/${name}`, resolve));
    await own.publish(`topics/${name}`, "task.created", { name });
    expect(await heard).toMatchObject({ channel: `topics/${name}`, data: { name } });
  });

  test("a wrong token ends it, with the reason", async () => {
    const wrong = client(guarded.url, { token: "wrong" });
    await expect(wrong.connect()).rejects.toBeInstanceOf(DCMError);
    await expect(wrong.connect()).rejects.toMatchObject({ code: "TOKEN_INVALID" });
    expect(wrong.state).toBe("closed");
  });

  test("one that does not authenticate is closed, and does not come back", async () => {
    const silent = client(guarded.url, { channels: [] });
    const errors = [];
    silent.on("error", (error) => errors.push(error.code));
    silent.connect().catch(() => {});
    await until(() => silent.state === "closed");
    expect(silent.lastClose.code).toBe(4001);
    expect(errors.at(-1)).toBe("AUTHENTICATION_REQUIRED");
  });

  test("a token that expires is replaced by a new one", async () => {
    // some may expire before a slow machine has used them
    let seconds = 0.25;
    let connections = 0;
    const short = client(guarded.url, { token: () => token("eve", { minutes: connections ? 60 : (seconds *= 2) / 60 }) });
    short.on("state", (state) => (connections += state === "connected"));
    await short.connect();
    await until(() => connections === 2);
    expect(short.lastClose.code).toBe(4001);
  });

  test("a token function that fails is asked again", async () => {
    let asked = 0;
    const errors = [];
    const unsure = client(guarded.url, {
      token: () => {
        asked += 1;
        if (asked < 3) throw new Error("later");
        return token("zoe");
      },
    });
    unsure.on("error", (error) => errors.push(error.code));
    await unsure.connect();
    expect(errors).toEqual(["TOKEN_FAILED", "TOKEN_FAILED"]);
  });

  test("and so is one that does not answer", async () => {
    let asked = 0;
    const errors = [];
    const slow = client(guarded.url, { token: () => (asked++ ? token("zoe") : new Promise(() => {})), requestTimeoutMs: 2000 });
    slow.on("error", (error) => errors.push(error.code));
    await slow.connect();
    expect(errors).toEqual(["TOKEN_FAILED"]);
  });
});

describe("a server that is none of ours", () => {
  let other;
  afterEach(() => {
    for (const socket of other.clients) socket.terminate();
    other.close();
  });

  /** A server that greets, and then does what `answer` does with each message. */
  async function impostor(answer, greeting = [{ type: "connected", client_id: "ws_1" }]) {
    other = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    other.on("connection", (socket) => {
      const say = (frame) => socket.send(JSON.stringify(frame));
      for (const frame of greeting) say(frame);
      socket.on("message", (text) => answer(JSON.parse(text), say, socket));
    });
    await new Promise((done) => other.once("listening", done));
    return `ws://127.0.0.1:${other.address().port}/`;
  }

  test("what is no message is an error, and does no harm", async () => {
    const url = await impostor(() => {}, [null, 5, "text", { type: "connected", client_id: "ws_1" }, { error: "?", code: "ODD" }]);
    const errors = [];
    const hearing = client(url);
    hearing.on("error", (error) => errors.push(error.code));
    await hearing.connect();
    await until(() => errors.length === 4);
    expect(errors).toEqual(["PARSE_ERROR", "PARSE_ERROR", "PARSE_ERROR", "ODD"]);
    expect(hearing.state).toBe("connected");
  });

  test("an event is given whatever its timestamp is", async () => {
    const came = [];
    const at = 1706000000000;
    const good = [at, at + 0.5, at / 1000, String(at), String(at / 1000), "2024-01-23T08:53:20Z", "2024-01-23 08:53:20", "20240123T085320Z", "2024-01-23T10:53:20.000+02:00"];
    const odd = ["yesterday", "today 10:00", "2024-13-45", "", null, undefined, true, [], {}, -5, 0, 1e300, "1970-01-01", "9".repeat(400)];
    const before = Date.now();
    const events = [...good, ...odd].map((timestamp, n) => ({ id: `m${n}`, channel: "global", event: "system.info", data: n, timestamp }));
    const listening = client(await impostor(() => {}, [{ type: "connected", client_id: "ws_1" }, ...events]));
    listening.on("event", (event) => came.push([event.data, event.timestamp]));
    await listening.connect();
    await until(() => came.length === good.length + odd.length);
    for (const [n, timestamp] of came) {
      if (n < good.length) expect([good[n], timestamp]).toEqual([good[n], at]);
      else expect(timestamp, String(odd[n - good.length])).toBeGreaterThanOrEqual(before);
    }
  });

  test("a parser of one's own may make every number a bigint, and one that fails does no harm", async () => {
    const parse = (text) => {
      if (text.includes("poison")) throw new Error("not this");
      if (text.includes("text")) return text;
      if (text.includes("nothing")) return undefined;
      return JSON.parse(text, (_, value) => (Number.isInteger(value) ? BigInt(value) : value));
    };
    const [came, errors] = [[], []];
    const events = ["poison", "text", "nothing", 5].map((data) => ({ id: `m${data}`, channel: "global", event: "system.info", data, timestamp: 1706000000000 }));
    const listening = client(await impostor(() => {}, [{ type: "connected", client_id: "ws_1" }, ...events]), { parse });
    listening.on("event", (event) => came.push(event));
    listening.on("error", (error) => errors.push(`${error.code}: ${error.message}`));
    await listening.connect();
    await until(() => came.length);
    const cannot = "PARSE_ERROR: A frame of the server cannot be read";
    const noObject = `${cannot}: it is not a JSON object`;
    expect(errors).toEqual([`${cannot}: not this`, noObject, noObject]);
    expect(came[0]).toMatchObject({ data: 5n, timestamp: 1706000000000 });
  });

  test("each pong is taken for the ping that it answers", async () => {
    const answers = [];
    const url = await impostor((message, say) => message.type === "ping" && answers.push({ message, say }));
    const asking = client(url, { requestTimeoutMs: 2000 });
    await asking.connect();
    const [late, refused, good] = [asking.ping(), asking.ping(), asking.ping()];
    await until(() => answers.length === 3);
    answers[1].say({ type: "ack", id: answers[1].message.id, success: false, code: "RATE_LIMITED", error: "slowly", retry_after_ms: 5 });
    await expect(refused).rejects.toMatchObject({ code: "RATE_LIMITED", retryAfterMs: 5 });
    await expect(late).rejects.toMatchObject({ code: "TIMEOUT" });
    await expect(good).rejects.toMatchObject({ code: "TIMEOUT" });
    const next = asking.ping();
    await until(() => answers.length === 4);
    // the two that nobody waits for any more
    for (let times = 0; times < 2; times += 1) answers[0].say({ type: "pong" });
    let settled = false;
    next.finally(() => (settled = true));
    await new Promise((done) => setTimeout(done, 50));
    expect(settled).toBe(false);
    answers[3].say({ type: "pong" });
    expect(await next).toBeGreaterThan(0);
  });

  test("a connection whose close is not answered is let go of", async () => {
    const url = await impostor(() => {});
    const made = [];
    class Noted extends WebSocket {
      constructor(...values) {
        super(...values);
        made.push(this);
      }
    }
    const leaving = client(url, { WebSocket: Noted });
    await leaving.connect();
    for (const socket of other.clients) socket._socket.pause();
    leaving.close();
    await until(() => made[0].readyState === WebSocket.CLOSED);
  });

  test("a token that comes too late is not said on another connection", async () => {
    const said = [];
    const url = await impostor((message, say, socket) => {
      said.push(message.token);
      say({ type: "ack", id: message.id, success: true, subscriptions: ["agents/x", "global"] });
    });
    const tokens = [];
    const slow = client(url, { token: () => new Promise((give) => tokens.push(give)) });
    slow.connect();
    await until(() => tokens.length === 1);
    for (const socket of other.clients) socket.terminate();
    await until(() => tokens.length === 2);
    tokens[1]("new");
    await until(() => slow.state === "connected");
    tokens[0]("old");
    await slow.authenticate("newest");
    expect(said).toEqual(["new", "newest"]);
  });
});

describe("listeners", () => {
  test("the name of an event matches a name, or the beginning of names", () => {
    const matches = (pattern) => isEvent({ event: "task.created" }, pattern);
    expect(["task.created", "task.*", "*", "task.failed", "subtask.*", "task"].map(matches)).toEqual([true, true, true, false, false, false]);
  });

  test("one that listens anew hears what comes after", async () => {
    const { listening, speaking } = await pair("topics/anew");
    let calls = 0;
    const once = () => {
      calls += 1;
      end();
      if (calls < 100) end = listening.on("event:system.info", once);
    };
    let end = listening.on("event:system.info", once);
    await speaking.publish("topics/anew", "system.info", 1);
    await listening.ping();
    expect(calls).toBe(1);
    await speaking.publish("topics/anew", "system.info", 2);
    await until(() => calls === 2);
    end();
  });

  test("an event is not acknowledged before its listener on global had it", async () => {
    const { listening, speaking } = await pair("topics/mirrored");
    await listening.subscribe("global");
    let calls = 0;
    listening.on("error", () => {});
    listening.on("channel:global", (event) => {
      if (event.event !== TASK) return;
      calls += 1;
      if (calls === 1) throw new Error("not now");
    });
    await speaking.publish("topics/mirrored", TASK, 1);
    await until(async () => calls === 2 && (await service.stats()).pendingDeliveries === 0);
  });

  test("a failure that nobody is told of is written to the console", async () => {
    const written = vi.spyOn(console, "error").mockImplementation(() => {});
    try {
      const { listening, speaking } = await pair("topics/unheard");
      listening.on("event", () => {
        throw new Error("nobody hears this");
      });
      listening.on("message", async () => Promise.reject(new Error("nor this")));
      await speaking.publish("topics/unheard", "system.info", 1);
      await until(() => written.mock.calls.some(([error]) => /nobody hears/.test(error.message)));
      expect(written.mock.calls.some(([error]) => /nor this/.test(error.message))).toBe(true);
    } finally {
      written.mockRestore();
    }
  });

  test("one that closes the client when it hears of an error has closed it", async () => {
    let asked = 0;
    const failing = client(service.url, {
      token: () => {
        asked += 1;
        throw new Error("no token today");
      },
    });
    failing.on("error", () => failing.close());
    await expect(failing.connect()).rejects.toMatchObject({ code: "CLOSED" });
    await new Promise((done) => setTimeout(done, 300));
    expect([failing.state, asked]).toEqual(["closed", 1]);
  });

  test("one that has another token when the first is refused connects with it", async () => {
    const guarded = await start({ production: true });
    const changing = client(guarded.url, { token: "wrong" });
    changing.on("error", () => {
      changing.authenticate(token("ann")).catch(() => {});
      changing.connect();
    });
    await changing.connect().catch(() => {});
    await until(() => changing.state === "connected");
    expect(changing.agentId).toBe("ann");
    await guarded.stop();
  });
});

describe("odd options", () => {
  test("undefined is the default", async () => {
    const usual = client(service.url, { backoff: { maxMs: undefined }, requestTimeoutMs: undefined, channels: undefined });
    await usual.connect();
    expect(usual.channels).toEqual(["global"]);
    expect(await usual.ping()).toBeGreaterThan(0);
  });

  test("a name that cannot be ends it, with the reason", async () => {
    const odd = client(service.url, { agentId: "no\nname" });
    await expect(odd.connect()).rejects.toMatchObject({ code: "INVALID_MESSAGE" });
    expect(odd.state).toBe("closed");
  });

  test("it is who it is, whomever else it listens to", async () => {
    const zed = client(service.url, { agentId: "zed", channels: ["agents/ann"] });
    await zed.connect();
    expect(zed.agentId).toBe("zed");
    const named = client(service.url, { token: token("zoe", { secret: "dcm-dev-secret-change-me" }), channels: ["agents/ann"] });
    await named.connect();
    expect(named.agentId).toBe("zoe");
  });

  test("a WebSocket that cannot be made is tried again", async () => {
    let made = 0;
    class Moody extends WebSocket {
      constructor(...values) {
        made += 1;
        if (made < 3) throw new Error("not now");
        super(...values);
      }
    }
    const trying = client(service.url, { WebSocket: Moody });
    await trying.connect();
    expect(made).toBe(3);
  });

  test("nothing is published before it is connected", async () => {
    let give;
    const slow = client(service.url, { token: () => new Promise((resolve) => (give = resolve)) });
    slow.connect();
    await until(() => give);
    await expect(slow.publish("global", "system.info")).rejects.toMatchObject({ code: "NOT_CONNECTED" });
  });
});
