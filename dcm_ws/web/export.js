/**
 * Saves events as JSON lines.
 */
import { element } from "./dom.js";

/** @param {object[]} events the oldest first */
export function download(events) {
  const lines = new Blob(
    events.map((event) => `${JSON.stringify(event)}\n`),
    { type: "application/x-ndjson" },
  );
  const link = element("a");
  link.href = URL.createObjectURL(lines);
  link.download = `dcm-ws-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.jsonl`;
  link.click();
  // once the browser has it
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
