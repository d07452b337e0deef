/**
 * A process that starts services for the tests: services.py.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { resolve } from "node:path";

// where a test has a document, modules have no file's address
const ROOT = `${resolve(process.cwd(), "../..")}/`;
const PYTHON = process.env.PYTHON ?? `${ROOT}.venv/bin/python`;

/** It ends, and with it all services, when this process does. */
export async function startServices() {
  const child = spawn(PYTHON, ["-m", "tests.javascript.services"], { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((done) => child.once("exit", done));
  for await (const port of createInterface({ input: child.stdout })) {
    // nothing waits for it
    for (const one of [child, child.stdin, child.stdout]) one.unref();
    return {
      port,
      async stop() {
        child.stdin.end();
        await ended;
      },
    };
  }
  throw new Error("tests.javascript.services did not start");
}

/** What Vitest calls before the first file: one for all of them. */
export default async function setup() {
  const { port, stop } = await startServices();
  process.env.DCM_WS_TEST_SERVICES = port;
  return stop;
}
