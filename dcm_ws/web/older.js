/**
 * Events from the log that are older than those on the page.
 */
import { DCMClient } from "./dcm-ws.js";

// positions that are added at once, and the farthest one from the end of the log
const STEP = 1000;
const FARTHEST = 20_000;
// the log has sent all of them after so much silence
const SILENCE_MS = 1500;

/**
 * Reads events that are before a position.
 *
 * @param {{channel: string, token?: string, before: number, head: number}} what `before` is the position of the
 *   oldest event on the page, and `head` the last one in the log
 * @returns {Promise<object[]>} in the order of the log
 * @throws {Error} they are too far from the end of the log, or the service cannot be reached
 */
export async function older({ channel, token, before, head }) {
  const last = head - before + STEP;
  if (last > FARTHEST) throw new Error(`Only the last ${FARTHEST.toLocaleString("en")} positions`);
  const client = new DCMClient("ws", { channels: [channel || "global"], token, observer: true, last });
  const found = new Map();
  try {
    await new Promise((done, fail) => {
      let silence = setTimeout(done, 5 * SILENCE_MS);
      client.on("gap", () => {});
      client.on("error", () => {});
      client.on("event", (event) => {
        clearTimeout(silence);
        silence = setTimeout(done, SILENCE_MS);
        if (event.pos >= before) done();
        else if (event.pos !== undefined) found.set(event.id, event);
      });
      client.connect().then(() => {
        clearTimeout(silence);
        silence = setTimeout(done, SILENCE_MS);
      }, fail);
    });
  } finally {
    client.close();
  }
  return [...found.values()].sort((one, other) => one.pos - other.pos);
}
