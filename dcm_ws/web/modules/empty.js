/**
 * What the lists say while they are empty.
 */
import { command, serviceUrl } from "./clipboard.js";
import { element } from "./dom.js";

const EVENT = `dcm-ws publish global task.created '{"title": "hello"}'`;
const AGENT = "dcm-ws wait --ack --agent-id ann";

/** Fills the places for it once; the pages show them while there is nothing else. */
export class Empty {
  #around;
  #waiting = element("div");
  #filtered = element("div");

  /**
   * @param {HTMLElement} around over the list of events
   * @param {() => void} reset shows all events
   */
  constructor(around, reset) {
    this.#around = around;
    this.#waiting.append(element("p", "Waiting for the first event…"), element("p", "Publish one from a terminal:"), command(`${EVENT} --url ${serviceUrl()}`));
    const button = element("button", "Reset the filter");
    button.type = "button";
    button.addEventListener("click", reset);
    this.#filtered.append(element("p", "No events match the filter."), button);
    around.append(this.#waiting, this.#filtered);
  }

  /**
   * @param {boolean} isEmpty
   * @param {boolean} filtered there are events, and none fits the filter
   */
  show(isEmpty, filtered) {
    this.#around.hidden = !isEmpty;
    this.#waiting.hidden = filtered;
    this.#filtered.hidden = !filtered;
  }
}

/** @returns {HTMLElement[]} how to connect an agent, where everybody may */
export function firstAgent() {
  return [element("p", "No agent is connected."), element("p", "Connect one from a terminal:"), command(`${AGENT} --url ${serviceUrl()}`)];
}
