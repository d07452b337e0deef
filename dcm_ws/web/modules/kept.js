/**
 * The last events, bounded in number and in size.
 */
const KEPT = 1000;
// characters of JSON, of all that is kept
const KEPT_SIZE = 16_000_000;
// with the older ones, which are dropped when the list goes on
const OLDER = 20_000;
const OLDER_SIZE = 64_000_000;

export class Kept {
  entries = [];
  #size = 0;
  // positions from which on all events of a channel were loaded
  #loaded = new Map();

  /** @returns {object[]} the events dropped to make room */
  add(entry) {
    this.entries.push(entry);
    this.#size += entry.size;
    const gone = [];
    while (this.entries.length > KEPT || (this.#size > KEPT_SIZE && this.entries.length > 1)) {
      const oldest = this.entries.shift();
      this.#size -= oldest.size;
      gone.push(oldest);
    }
    if (gone.length) this.#loaded.clear();
    return gone;
  }

  /** @returns {number} the position before which events of a channel are not on the page; Infinity if it has none */
  before(channel) {
    const live = (least, { event, isOlder }) => (isOlder ? least : Math.min(least, event.pos ?? least));
    return this.#loaded.get(channel) ?? this.entries.reduce(live, Infinity);
  }

  /** @returns {boolean} is there room for older events? */
  get hasRoom() {
    return this.entries.length < OLDER && this.#size < OLDER_SIZE;
  }

  /**
   * @param {object[]} older in the order of the log; the next one that is added drops what is too much
   * @param {string} channel
   * @param {number} from the position from which on they are all of the channel
   * @returns {object[]} those that were not here before
   */
  addOlder(older, channel, from) {
    this.#loaded.set(channel, from);
    const known = new Set(this.entries.map(({ event }) => event.id));
    const added = older.filter(({ event }) => !known.has(event.id));
    const merged = [];
    let next = 0;
    for (const entry of this.entries) {
      while (next < added.length && isBefore(added[next].event, entry.event)) merged.push(added[next++]);
      merged.push(entry);
    }
    this.entries = [...merged, ...added.slice(next)];
    for (const entry of added) {
      entry.isOlder = true;
      this.#size += entry.size;
    }
    return added;
  }

  clear() {
    this.entries = [];
    this.#size = 0;
    this.#loaded.clear();
  }
}

/** Is an event of the log before another, which may have no position? */
function isBefore(logged, { pos, timestamp }) {
  return pos === undefined ? logged.timestamp <= timestamp : logged.pos < pos;
}
