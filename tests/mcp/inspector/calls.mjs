/*
 * Runs the inspector's command for each line of the standard input, an array of its arguments, in one process.  Answers
 * each with a line: the exit status that the command would have, and what it printed.
 */
import { createInterface } from "node:readline";
import { runCli } from "@modelcontextprotocol/inspector/clients/cli/build/index.js";

const write = process.stdout.write.bind(process.stdout);
let printed = "";
process.stdout.write = (text, ...more) => {
  printed += text;
  more.at(-1)?.();
  return true;
};

for await (const line of createInterface({ input: process.stdin })) {
  let status = 0;
  printed = "";
  try {
    await runCli(["node", "mcp-inspector", ...JSON.parse(line)]);
  } catch (error) {
    status = error.exitCode ?? 1;
    printed ||= String(error);
  }
  write(`${JSON.stringify([status, printed])}\n`);
}
