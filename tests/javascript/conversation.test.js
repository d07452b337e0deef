// What the client says on a connection, and when it connects again: the cases that the Python clients are tested against, too.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DCMClient } from "../../dcm_ws/web/dcm-ws.js";

const CASES = JSON.parse(readFileSync(resolve(process.cwd(), "../client/conversation-cases.json"), "utf8"));

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** One client, and the server's side of its connections; it takes the steps of a case. */
class Player {
  // messages that have not been checked yet
  #sent = [];
  // the ids of requests, by type and channel
  #asked = new Map();
  #sockets = [];
  #refused = [];
  #failed = [];
  #retryMs = 0;
  #connectError;

  constructor({ token, tokens, agent_id: agentId, session_id: sessionId, channels }) {
    const player = this;
    class FakeSocket extends EventTarget {
      readyState = 0;
      constructor() {
        super();
        player.#sockets.push(this);
      }
      send(text) {
        player.#heard(JSON.parse(text));
      }
      close() {
        this.readyState = 3;
      }
    }
    this.client = new DCMClient("ws://127.0.0.1:1/ws", {
      token: tokens === undefined ? token : this.#tokenFunction([...tokens]),
      agentId,
      sessionId,
      channels,
      WebSocket: FakeSocket,
      // the longest delay that the back-off allows
      random: () => 1,
    });
    this.client.on("error", (error) => error.channel !== undefined && this.#refused.push([error.channel, error.code]));
    this.client.on("state", (state) => {
      if (state === "waiting") this.#retryMs = this.client.retryAt - Date.now();
    });
  }

  #tokenFunction(results) {
    return () => {
      const result = results.shift();
      if (result?.fails !== undefined) throw new Error(result.fails);
      if (result?.never) return new Promise(() => {});
      return result ?? undefined;
    };
  }

  #heard({ id, timestamp, ...message }) {
    expect(timestamp).toEqual(expect.any(Number));
    this.#sent.push(message);
    if (id !== undefined) this.#asked.set([message.type, message.channel].filter(Boolean).join(" "), id);
  }

  async connect() {
    this.client.connect().catch((error) => (this.#connectError = error));
    await this.#open();
  }

  async #open() {
    const socket = this.#sockets.at(-1);
    socket.readyState = 1;
    socket.dispatchEvent(new Event("open"));
    await this.#settled();
  }

  #settled() {
    return vi.advanceTimersByTimeAsync(0);
  }

  async #hear(frame) {
    this.#sockets.at(-1).dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify(frame) }));
    await this.#settled();
  }

  async #end(code, reason) {
    const socket = this.#sockets.at(-1);
    socket.readyState = 3;
    socket.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
    await this.#settled();
  }

  async #user(method, channel) {
    if (method === "connect") await this.connect();
    else if (method === "close") this.client.close();
    else this.client[method](channel).catch(({ code }) => this.#failed.push(code));
    await this.#settled();
  }

  async #reconnect() {
    const before = this.#sockets.length;
    await vi.advanceTimersByTimeAsync(this.#retryMs);
    expect(this.#sockets.length).toBe(before + 1);
    expect(this.client.state).toBe("connecting");
    await this.#open();
  }

  async take(step) {
    const [what] = Object.keys(step);
    const value = step[what];
    switch (what) {
      case "server":
        return this.#hear(value);
      case "answer": {
        const id = this.#asked.get(value);
        expect(id).toBeDefined();
        this.#asked.delete(value);
        return this.#hear({ type: "ack", id, timestamp: 1, ...step.with });
      }
      case "closes":
        return this.#end(...value);
      case "wait":
        return vi.advanceTimersByTimeAsync(value);
      case "reconnect":
        return this.#reconnect();
      case "user":
        return this.#user(...value);
      case "sends":
        return expect(this.#sent.splice(0)).toEqual(value);
      case "state":
        return expect(this.client.state).toBe(value);
      case "retry":
        expect(this.client.state).toBe("waiting");
        return expect(this.#retryMs).toBe(value);
      case "gives_up":
        expect(this.client.state).toBe("closed");
        if (value.refusal !== undefined) return expect(this.#connectError?.code).toBe(value.refusal);
        return expect(this.client.lastClose.code).toBe(value.close);
      case "refused":
        return expect(this.#refused).toEqual(value);
      case "failed":
        return expect(this.#failed).toEqual(value);
      default:
        throw new Error(`unknown step: ${what}`);
    }
  }
}

test.each(CASES)("$name", async ({ options, steps }) => {
  const player = new Player(options);
  await player.connect();
  for (const [number, step] of steps.entries()) {
    try {
      await player.take(step);
    } catch (error) {
      error.message += `\nin step ${number}: ${JSON.stringify(step)}`;
      throw error;
    }
  }
  player.client.close();
});
