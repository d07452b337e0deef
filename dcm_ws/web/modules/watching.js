/**
 * The channels that the page subscribes to in addition to `global`: with `--mirror database`, that does not carry what clients
 * publish elsewhere.
 */
const WATCHED = 100;
// unsubscribe after this much silence, and stay unsubscribed as long: otherwise two pages would keep a channel alive
const QUIET_MS = 300_000;

export class Watching {
  #client;
  #mayRead;
  #heardOn = new Map();
  #resting = new Map();

  /**
   * @param {import("../dcm-ws.js").DCMClient} client
   * @param {(channel: string) => boolean} mayRead
   */
  constructor(client, mayRead) {
    this.#client = client;
    this.#mayRead = mayRead;
  }

  /** @param {string} channel that an event came on */
  heard(channel) {
    if (this.#heardOn.has(channel)) this.#heardOn.set(channel, Date.now());
  }

  /** @param {Object<string, number>} channels their subscribers, as `/stats` counts them */
  look(channels) {
    const now = Date.now();
    for (const [name, until] of this.#resting) if (until < now) this.#resting.delete(name);
    for (const [name, subscribers] of Object.entries(channels)) {
      if (name === "global" || name === "metrics" || !this.#mayRead(name)) continue;
      const at = this.#heardOn.get(name);
      if (at === undefined) {
        if (this.#heardOn.size >= WATCHED || this.#resting.has(name)) continue;
        this.#heardOn.set(name, now);
        this.#client.subscribe(name).catch(() => {});
      } else if (subscribers === 1 || now - at > QUIET_MS) {
        this.#heardOn.delete(name);
        this.#resting.set(name, now + (subscribers === 1 ? 0 : QUIET_MS));
        this.#client.unsubscribe(name).catch(() => {});
      }
    }
  }
}
