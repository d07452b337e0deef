// Runs the examples as they are, against a port of the test's: `node run.mjs PORT`.
// Each line of standard input names one to run; they share one scope, as the second uses the first one's `ws`.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

const port = process.argv[2];

globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...rest) {
    super(url.replace("127.0.0.1:3849", `127.0.0.1:${port}`), ...rest);
  }
};

createInterface({ input: process.stdin })
  .on("line", (name) => runInThisContext(readFileSync(new URL(name, import.meta.url), "utf8"), { filename: name }))
  .on("close", () => process.exit());
