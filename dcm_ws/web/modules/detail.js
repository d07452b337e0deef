/**
 * The event that is chosen: its envelope, its data, and what can be done with it.
 */
import { copy } from "./clipboard.js";
import { $, element } from "./dom.js";
import { folded } from "./text.js";

export class Detail {
  #entry = null;
  #filter;

  /**
   * @param {() => void} leave closes it
   * @param {(parts: object) => void} filter shows other events
   */
  constructor(leave, filter) {
    this.#filter = filter;
    $("close").addEventListener("click", leave);
    $("copy").addEventListener("click", () => copy($("copy"), JSON.stringify(this.#entry.event.data, null, 2), $("detail-json")));
    $("copy-event").addEventListener("click", () => copy($("copy-event"), JSON.stringify(this.#entry.event), $("detail-envelope")));
    $("again").addEventListener("click", () => this.#publishAgain());
  }

  /** @param {object | null} entry */
  show(entry) {
    this.#entry = entry;
    $("detail").hidden = entry === null;
    if (entry === null) return;
    const { event } = entry;
    const { data, ...envelope } = event;
    $("detail-title").textContent = event.event;
    $("detail-facts").replaceChildren(
      ...this.#fact("channel", event.channel, event.id && { channel: event.channel }),
      ...this.#fact("from", event.from, { agent: event.from }),
      ...(entry.agent === event.from ? [] : this.#fact("agent", entry.agent, { agent: entry.agent })),
      ...this.#fact("time", stamp(event.timestamp)),
    );
    const needle = $("text").value.trim().toLowerCase();
    $("detail-json").replaceChildren(...folded(data ?? null, needle));
    $("detail-envelope").textContent = JSON.stringify(envelope, null, 2);
    $("again").hidden = $("publish").hidden || event.event === "gap";
  }

  /** @returns {HTMLElement[]} a line of the facts, which shows what else has it in common, if there are `parts` */
  #fact(name, value, parts) {
    if (!value) return [];
    const shown = element("dd", parts ? undefined : value);
    if (parts) {
      const button = element("button", value, "link");
      button.type = "button";
      button.title = name === "channel" ? "Show the events of this channel" : "Show the events of this agent";
      button.addEventListener("click", () => this.#filter(parts));
      shown.append(button);
    }
    return [element("dt", name), shown];
  }

  /** Fills the form; anyone who presses its button has seen it. */
  #publishAgain() {
    const { event } = this.#entry;
    $("publish-channel").value = event.channel;
    $("publish-event").value = event.event;
    $("publish-data").value = JSON.stringify(event.data, null, 2);
    $("publish-form").querySelector("button").focus();
    $("publish").scrollIntoView({ block: "nearest" });
  }
}

/** The time in this browser's zone, with the date. */
function stamp(timestamp) {
  const time = new Date(timestamp);
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().replace("T", " ").slice(0, -1);
}
