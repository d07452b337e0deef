/**
 * Events from the log that are older than those on the page, read over HTTP.
 */

// positions that are read at first, and at most at once where there are few events
const STEP = 1000;
const FARTHEST = 16_000;
// requests for one press of the button
const READS = 40;
// digits of a position in an offset; the page is of the same version as the service
const DIGITS = 16;

/**
 * Reads events that are before a position.
 *
 * @param {{channel: string, token?: string, before: number}} what `before` is a position, or Infinity for the end of
 *   the log
 * @returns {Promise<{events: object[], from: number, isAll: boolean}>} the events in the order of the log, the position
 *   from which on they are all of the channel, and whether the log has nothing before them
 * @throws {Error} the service cannot be reached, or refuses
 */
export async function older({ channel, token, before }) {
  const reading = new Reading(channel, token);
  await reading.begin();
  let to = Math.min(before, reading.head + 1);
  for (let step = STEP; ; ) {
    const from = Math.max(reading.oldest, to - step);
    const events = await reading.between(from, to);
    if (events === null) {
      // large ones
      step = Math.ceil(step / 8);
      continue;
    }
    // the log may have lost some meanwhile
    const isAll = from <= reading.oldest;
    to = Math.min(to, Math.max(from, reading.oldest));
    if (events.length || isAll || reading.left <= 0) return { events, from: to, isAll };
    step = Math.min(FARTHEST, step * 4);
  }
}

class Reading {
  #url;
  #headers;
  #epoch;
  /** The last position of the log. */
  head = 0;
  /** The first position of the log, as far as it is known. */
  oldest = 1;
  /** Requests that are left. */
  left = READS;

  constructor(channel, token) {
    this.#url = `v1/streams/${channel.split("/").map(encodeURIComponent).join("/")}`;
    this.#headers = token ? { Authorization: `Bearer ${token}` } : {};
  }

  /** Asks where the log ends. */
  async begin() {
    const answer = await this.#request("HEAD", "");
    if (!answer.ok) throw new Error(`The service answers ${answer.status}`);
    [this.#epoch, this.head] = parsed(answer.headers.get("Stream-Next-Offset"));
  }

  /** @returns {Promise<object[] | null>} the events from one position up to before another; null if they are too many */
  async between(from, to) {
    const events = [];
    for (let next = `${this.#epoch}_${String(from - 1).padStart(DIGITS, "0")}`; ; ) {
      if (this.left <= 0 && to - from > 1) {
        // the next time it is fewer
        this.left = READS / 4;
        return null;
      }
      this.left -= 1;
      const answer = await this.#request("GET", `?offset=${next}`);
      const body = await answer.json();
      if (answer.status === 410 && body.gap?.reason === "expired") {
        this.oldest = parsed(body.gap.oldest)[1] + 1;
        if (this.oldest >= to) return [];
        next = body.gap.oldest;
        continue;
      }
      if (!answer.ok) throw new Error(body.error ?? `The service answers ${answer.status}`);
      const before = body.filter(({ pos }) => pos < to);
      events.push(...before);
      if (before.length < body.length || answer.headers.has("Stream-Up-To-Date")) return events;
      next = answer.headers.get("Stream-Next-Offset");
      if (parsed(next)[1] >= to - 1) return events;
    }
  }

  #request(method, query) {
    return fetch(this.#url + query, { method, headers: this.#headers, cache: "no-store" });
  }
}

/** @returns {[string, number]} the log and the position that an offset names */
function parsed(offset) {
  const at = offset.lastIndexOf("_");
  return [offset.slice(0, at), Number(offset.slice(at + 1))];
}
