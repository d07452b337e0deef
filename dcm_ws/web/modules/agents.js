/**
 * The list of the agents that are connected.
 */
import { $, element, whole } from "./dom.js";
import { firstAgent } from "./empty.js";

const SHOWN = 500;

export class Agents {
  #chosen = "";
  #names = new Set();
  #canPublish;

  /**
   * @param {(name: string) => void} choose called with the agent that is clicked on; empty for none
   * @param {boolean} development everybody may connect as an agent
   */
  constructor(choose, development) {
    this.#canPublish = development;
    $("agents").addEventListener("click", ({ target }) => {
      const name = target.closest("button")?.dataset.agent;
      if (name !== undefined) choose(name === this.#chosen ? "" : name);
    });
    $("agent-close").addEventListener("click", () => choose(""));
  }

  /** @returns {boolean} is an agent connected, as far as it is known? */
  has(name) {
    return this.#names.has(name);
  }

  /** @param {string} name of the agent whose events are shown; empty for none */
  choose(name) {
    this.#chosen = name;
    for (const button of $("agents").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.agent === name));
  }

  /** @param {object} stats the body of `/stats`, or of `/health`, which names no agents */
  show({ agents, agentStats = {}, agentLoads = {}, channelStats }) {
    const names = agents ? Object.keys(agentStats).sort() : [];
    this.#names = new Set(names);
    $("agents").replaceChildren(...names.slice(0, SHOWN).map((name) => this.#item(name, agentLoads)));
    const shown = names.length > SHOWN ? `, ${whole.format(SHOWN)} shown` : "";
    $("agent-count").textContent = agents ? whole.format(agents.connected) + shown : "–";
    const none = $("no-agents");
    none.hidden = names.length > 0;
    const why = !agents ? "Not known: /stats is not published here." : channelStats ? "" : "Their names are shown only with a valid token.";
    const said = why || (this.#canPublish ? "first" : "No agent is connected.");
    // as it is, its button may have the focus
    if (none.dataset.said === said) return;
    none.dataset.said = said;
    none.replaceChildren(...(said === "first" ? firstAgent() : [said]));
  }

  #item(name, loads) {
    const item = element("li");
    const button = element("button", name);
    button.type = "button";
    button.dataset.agent = name;
    button.title = "Show its events";
    button.setAttribute("aria-pressed", String(this.#chosen === name));
    item.append(button);
    const owed = Object.hasOwn(loads, name) ? loads[name].owed : 0;
    if (owed) item.append(element("small", `${whole.format(owed)} owed`));
    return item;
  }
}
