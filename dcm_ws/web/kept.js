/**
 * The last events, bounded in number and in size.
 */
const KEPT = 1000;
// characters of JSON, of all that is kept
const KEPT_SIZE = 16_000_000;

export class Kept {
  entries = [];
  #size = 0;

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
    return gone;
  }

  /** @param {object[]} older in the order of the log; the next one that is added drops what is too much */
  addOlder(older) {
    this.entries.unshift(...older);
    for (const { size } of older) this.#size += size;
  }

  clear() {
    this.entries = [];
    this.#size = 0;
  }
}
