/**
 * The real service, as a process of its own.
 */
import { execFileSync, spawn } from "node:child_process";
import { createServer, connect } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { DCMClient } from "../../dcm_ws/web/dcm-ws.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PYTHON = process.env.PYTHON ?? `${ROOT}.venv/bin/python`;
export const SECRET = "a secret that only these tests know about";

/** Start one, without a database; answers once it is ready. */
export async function start({ port = 0, options = [], production = false } = {}) {
  const twistd = ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "dcm-ws"];
  const database = production ? ["--production", "--database-url", "postgresql://nobody@127.0.0.1:1/none"] : ["--no-database"];
  const process_ = spawn(PYTHON, [...twistd, "--ws-port", String(port), "--drain", "0.1", ...database, ...options], {
    cwd: ROOT,
    env: { ...process.env, WS_AUTH_SECRET: production ? SECRET : "" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => process_.once("exit", resolve));
  let found;
  const log = [];
  for await (const line of createInterface({ input: process_.stdout })) {
    log.push(line);
    found ??= /listening on ws:\/\/[^ ]*:(\d+)\//.exec(line)?.[1];
    if (line.includes("] ready")) break;
  }
  if (!found) throw new Error(`The service did not start:\n${log.join("\n")}`);
  process_.stdout.resume();
  return {
    port: Number(found),
    url: `ws://127.0.0.1:${found}/ws`,
    http: `http://127.0.0.1:${found}`,
    stats: async () => (await fetch(`http://127.0.0.1:${found}/stats`)).json(),
    /** Subscribers by channel. */
    channels: async () => (await (await fetch(`http://127.0.0.1:${found}/stats`)).json()).channelStats,
    async stop(signal = "SIGTERM") {
      process_.kill(signal);
      await ended;
    },
  };
}

/** A token as the coordinator gives it. */
export function token(agent, { minutes = 60 } = {}) {
  const program = [
    "import sys, time",
    "from dcm_ws.tokens import sign",
    "now = int(time.time() * 1000)",
    "print(sign(sys.argv[1], sys.argv[2], None, now - 3600000 + int(float(sys.argv[3]) * 60000)))",
  ];
  return execFileSync(PYTHON, ["-c", program.join("\n"), SECRET, agent, String(minutes)], { cwd: ROOT, encoding: "utf8" }).trim();
}

const clients = new Set();

/** A client of its own sockets, closed after the test. */
export function client(url, options = {}) {
  const made = new DCMClient(url, { WebSocket, backoff: { baseMs: 50, maxMs: 200 }, ...options });
  clients.add(made);
  return made;
}

export function closeClients() {
  for (const made of clients) made.close();
  clients.clear();
}

/** Wait until `check` answers something true. */
export async function until(check, what = "what was waited for") {
  const end = Date.now() + 15_000;
  for (;;) {
    const answer = await check();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 10));
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
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `ws://127.0.0.1:${server.address().port}/ws`,
    cut: () => [...pairs].flat().forEach((end) => end.destroy()),
    close: () => (server.close(), [...pairs].flat().forEach((end) => end.destroy())),
  };
}
