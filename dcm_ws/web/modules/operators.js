/**
 * What only operators see: what became of an event, and what an agent is owed.
 */
import { ask } from "./connection.js";
import { $, element } from "./dom.js";

// agents of an event, and events of an agent, that are shown
const SHOWN = 50;
const WORDS = { sent: "sent", acknowledged: "acknowledged", dead: "dead", redriven: "to be sent again" };

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

/**
 * Is a token an operator's, as far as it says so itself?  The service decides; the page only avoids requests that would be refused.
 *
 * @param {string | undefined} token
 */
export function isOperator(token) {
  try {
    const parts = token.split(".");
    const claims = parts[parts.length === 3 ? 1 : 0].replaceAll("-", "+").replaceAll("_", "/");
    const { scope = [] } = JSON.parse(atob(claims));
    return (typeof scope === "string" ? scope.split(" ") : scope).includes("operator");
  } catch {
    return false;
  }
}

/** Shows what became of the event that is chosen, at each agent. */
export class EventLedger {
  #identity;
  #mayAsk;
  #event = null;

  /**
   * @param {{token?: string}} identity has the token that was given last
   * @param {boolean} development everybody is an operator
   */
  constructor(identity, development) {
    this.#identity = identity;
    this.#mayAsk = () => development || isOperator(identity.token);
  }

  /** @param {object | null} event the one that is chosen; only the log's have a ledger */
  choose(event) {
    this.#event = event?.pos && this.#mayAsk() ? event : null;
    $("ledger").hidden = true;
    $("ledger-agents").replaceChildren();
    return this.look();
  }

  /** Asks the service again. */
  async look() {
    const event = this.#event;
    if (event === null) return;
    const ledger = await ask(`v1/events/${encodeURIComponent(event.id)}?limit=${SHOWN}`, this.#identity.token);
    // another one may be chosen meanwhile
    if (event !== this.#event || !ledger?.agents) return;
    $("ledger-count").textContent = ledger.total === 0 ? "no agent got it" : `${ledger.total}`;
    $("ledger-agents").replaceChildren(...ledger.agents.map(line));
    $("ledger").hidden = false;
  }
}

function line(agent) {
  const item = element("li", undefined, agent.state);
  const details = element("details");
  const summary = element("summary");
  const times = agent.sent === 1 ? "" : ` after ${agent.sent} sends`;
  summary.append(element("span", agent.agent_id), element("small", WORDS[agent.state] + times));
  const history = element("ol");
  history.append(
    ...agent.history.map((entry) => {
      const step = element("li");
      step.append(element("time", time.format(entry.at)), ` ${entry.what}${entry.reason ? ` (${entry.reason})` : ""}`);
      return step;
    }),
  );
  details.append(summary, history);
  item.append(details);
  return item;
}

/** Shows an agent that is chosen in the list: what it is owed. */
export class AgentDetail {
  #identity;
  #mayAsk;
  #name = null;

  /** The parameters are those of `EventLedger`. */
  constructor(identity, development) {
    this.#identity = identity;
    this.#mayAsk = () => development || isOperator(identity.token);
  }

  /** @returns {string | null} the agent that is shown */
  get name() {
    return this.#name;
  }

  /** @param {string | null} name of the agent; null for none */
  choose(name) {
    const shown = this.#mayAsk() ? name : null;
    if (shown === this.#name) return undefined;
    this.#name = shown;
    $("agent-detail").hidden = this.#name === null;
    $("agent-facts").replaceChildren();
    $("agent-owed").replaceChildren();
    $("agent-title").textContent = this.#name ?? "";
    return this.look();
  }

  /** Asks the service again. */
  async look() {
    const name = this.#name;
    if (name === null) return;
    const agent = await ask(`v1/agents/${encodeURIComponent(name)}`, this.#identity.token);
    if (name !== this.#name || !agent?.unacknowledged) return;
    $("agent-facts").replaceChildren();
    for (const [fact, value] of [
      ["connections", agent.connections],
      ["owed", agent.owed],
      ["dead letters", agent.dead],
      ["sent up to", agent.sent],
      ["acknowledged up to", agent.acknowledged],
      ["channels", Object.keys(agent.channels).join("\n")],
    ]) {
      $("agent-facts").append(element("dt", fact), element("dd", String(value)));
    }
    $("agent-owed").replaceChildren(
      ...agent.unacknowledged.slice(0, SHOWN).map((one) => element("li", `${one.pos}  ${one.id}  sent ${one.sent}×`)),
    );
  }
}
