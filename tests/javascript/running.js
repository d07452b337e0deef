/**
 * The real service, as a process of its own.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import { createServer, connect } from "node:net";
import { createInterface } from "node:readline";
import { resolve } from "node:path";
import { WebSocket } from "ws";
import { DCMClient } from "../../dcm_ws/web/dcm-ws.js";

// where a test has a document, modules have no file's address
const ROOT = `${resolve(process.cwd(), "../..")}/`;
const PYTHON = process.env.PYTHON ?? `${ROOT}.venv/bin/python`;
export const SECRET = "a secret that only these tests know about";

const running = new Set();
// also those of tests that failed
process.on("exit", () => running.forEach((one) => one.kill("SIGKILL")));

/**
 * Start one, and wait until it is ready: without a database, with an embedded PostgreSQL in the folder `data`, or as in
 * production.
 */
export async function start({ port = 0, options = [], production = false, data } = {}) {
  const twistd = ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "dcm-ws"];
  const nowhere = "postgresql://nobody@127.0.0.1:1/none";
  const database = production ? ["--production", "--database-url", nowhere, "--log", "memory"] : data ? ["--dcm-data-dir", data] : ["--no-database"];
  const process_ = spawn(PYTHON, [...twistd, "--ws-port", String(port), "--drain", "0.1", ...database, ...options], {
    cwd: ROOT,
    env: { ...process.env, WS_AUTH_SECRET: production ? SECRET : "" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  running.add(process_);
  const ended = new Promise((done) => process_.once("exit", done)).then(() => running.delete(process_));
  let found, dsn;
  const log = [];
  let ready = false;
  for await (const line of createInterface({ input: process_.stdout })) {
    log.push(line);
    dsn ??= /embedded PostgreSQL: (\S+)/.exec(line)?.[1];
    found ??= /listening on ws:\/\/[^ ]*:(\d+)\//.exec(line)?.[1];
    // without a database production listens, and is never ready
    ready = line.includes("] ready") || Boolean(production && found);
    if (ready) break;
  }
  if (!ready) throw new Error(`The service did not start:\n${log.join("\n")}`);
  process_.stdout.resume();
  return {
    port: Number(found),
    url: `ws://127.0.0.1:${found}/ws`,
    http: `http://127.0.0.1:${found}`,
    /** What is said to its database. */
    sql: (statement, ...values) => sql(dsn, statement, values),
    stats: async () => (await fetch(`http://127.0.0.1:${found}/stats`)).json(),
    /** Subscribers by channel. */
    channels: async () => (await (await fetch(`http://127.0.0.1:${found}/stats`)).json()).channelStats,
    async stop(signal = "SIGTERM") {
      process_.kill(signal);
      await ended;
    },
  };
}

const SQL = [
  "import json, sys, psycopg2",
  "connection = psycopg2.connect(sys.argv[1])",
  "connection.autocommit = True",
  "connection.cursor().execute(sys.argv[2], json.loads(sys.argv[3]) or None)",
].join("\n");

/** Run one statement, as another program would. */
function sql(dsn, statement, values) {
  return new Promise((done, fail) => {
    execFile(PYTHON, ["-c", SQL, dsn, statement, JSON.stringify(values)], (error) => (error ? fail(error) : done()));
  });
}

/** A token as the coordinator gives it. */
export function token(agent, { minutes = 60, secret = SECRET } = {}) {
  const program = [
    "import sys, time",
    "from dcm_ws.protocol.tokens import sign",
    "now = int(time.time() * 1000)",
    "print(sign(sys.argv[1], sys.argv[2], None, now - 3600000 + int(float(sys.argv[3]) * 60000)))",
  ];
  return execFileSync(PYTHON, ["-c", program.join("\n"), secret, agent, String(minutes)], { cwd: ROOT, encoding: "utf8" }).trim();
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

/** Wait until `check` answers something true. */
export async function until(check, what = "what was waited for") {
  const end = Date.now() + 15_000;
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
