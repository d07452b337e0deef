/**
 * The real service, as a process of its own.
 */
import { createHmac } from "node:crypto";
import { createServer, connect } from "node:net";
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { DCMClient } from "../../dcm_ws/web/dcm-ws.js";
import { startServices } from "./services.js";

export const SECRET = "a secret that only these tests know about";

/** A connection to services.py: calls and their answers. */
class Calls {
  #socket;
  #answers;

  static async open() {
    // Vitest starts one for all files
    process.env.DCM_WS_TEST_SERVICES ??= (await startServices()).port;
    const socket = connect(Number(process.env.DCM_WS_TEST_SERVICES), "127.0.0.1");
    await new Promise((done, fail) => socket.once("connect", done).once("error", fail));
    return new Calls(socket);
  }

  constructor(socket) {
    this.#socket = socket;
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  async call(name, given) {
    this.#socket.write(`${JSON.stringify({ [name]: given })}\n`);
    const { value, done } = await this.#answers.next();
    const { result, error } = done ? { error: "there was no answer" } : JSON.parse(value);
    if (error) throw new Error(error);
    return result;
  }

  close() {
    this.#socket.end();
  }
}

/**
 * Start one, and wait until it is ready: without a database, with an embedded PostgreSQL in the folder `data`, or as in
 * production.
 */
export async function start({ port = 0, options = [], production = false, data } = {}) {
  const nowhere = "postgresql://nobody@127.0.0.1:1/none";
  const database = production ? ["--production", "--database-url", nowhere, "--log", "memory"] : data ? ["--dcm-data-dir", data] : ["--no-database"];
  const calls = await Calls.open();
  const { port: found, database: dsn } = await calls.call("start", {
    options: ["--ws-port", String(port), "--drain", "0.1", ...database, ...options],
    env: production ? { WS_AUTH_SECRET: SECRET } : {},
    // without a database production listens, and is never ready
    wait: production ? "listening on" : "] ready",
  });
  return {
    port: found,
    url: `ws://127.0.0.1:${found}/ws`,
    http: `http://127.0.0.1:${found}`,
    /** Run one statement in its database, as another program would. */
    async sql(statement, ...values) {
      const other = await Calls.open();
      try {
        await other.call("execute", { url: dsn, statement, values });
      } finally {
        other.close();
      }
    },
    stats: async () => (await fetch(`http://127.0.0.1:${found}/stats`)).json(),
    /** Subscribers by channel. */
    channels: async () => (await (await fetch(`http://127.0.0.1:${found}/stats`)).json()).channelStats,
    async stop(signal = "SIGTERM") {
      await calls.call("stop", { how: signal });
      calls.close();
    },
  };
}

/** A token as the coordinator gives it. */
export function token(agent, { minutes = 60, secret = SECRET } = {}) {
  const end = Date.now() + Math.round(minutes * 60_000);
  const claims = Buffer.from(JSON.stringify({ agent_id: agent, issued_at: end - 3_600_000, expires_at: end }));
  return `${claims.toString("base64url")}.${createHmac("sha256", secret).update(claims).digest("hex")}`;
}

const clients = new Set();

/** A client of its own sockets, closed after each test. */
export function client(url, options = {}) {
  const made = new DCMClient(url, { WebSocket, backoff: { baseMs: 50, maxMs: 200 }, ...options });
  clients.add(made);
  return made;
}

export function closeClients() {
  for (const made of clients) made.close();
}

/** Wait until `check` answers something true.  The limit is far beyond what a slow machine needs. */
export async function until(check, what = "what was waited for") {
  const end = Date.now() + 60_000;
  for (;;) {
    const answer = await check();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** A way to the service that can be cut. */
export async function proxy(port) {
  const pairs = new Set();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    const pair = [near, far];
    pairs.add(pair);
    near.pipe(far).pipe(near);
    for (const end of pair) end.on("error", () => {}).on("close", () => (pairs.delete(pair), near.destroy(), far.destroy()));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `ws://127.0.0.1:${server.address().port}/ws`,
    cut: () => [...pairs].flat().forEach((end) => end.destroy()),
    close: () => (server.close(), [...pairs].flat().forEach((end) => end.destroy())),
  };
}
