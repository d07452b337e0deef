/**
 * The controls of the filter.
 */
import { $, element } from "./dom.js";
import { AT_FIRST, CATEGORIES, patternsOf, recall, remember, toggled } from "./filter.js";

// values that a list offers: those seen last
const CHOICES = 200;

export class Filters {
  #channels = new Choices($("channel"));
  #agents = new Choices($("agent"));
  #changed;
  #value;

  /** @param {() => void} changed called after each change */
  constructor(changed) {
    this.#changed = changed;
    for (const category of CATEGORIES) {
      const chip = element("label", undefined, "chip");
      const box = element("input");
      box.type = "checkbox";
      box.value = category;
      chip.style.setProperty("--c", `var(--${category})`);
      chip.append(box, element("i"), category);
      $("categories").append(chip);
    }
    this.#show(recall());
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("input", ({ target }) => {
      if (target.type === "checkbox") $("event").value = toggled($("event").value, target.value, target.checked);
      this.set({ event: $("event").value, channel: $("channel").value, agent: $("agent").value, text: $("text").value });
    });
    $("reset").addEventListener("click", () => this.set(AT_FIRST));
  }

  get value() {
    return this.#value;
  }

  /** @param {Partial<typeof AT_FIRST>} parts those that change */
  set(parts) {
    this.#show({ ...this.#value, ...parts });
    remember(this.#value);
    this.#changed();
  }

  /** Offers the channel and the agent of an event. */
  see(channel, agent) {
    this.#channels.see(channel);
    if (agent) this.#agents.see(agent);
  }

  /** Offers only what comes from now on. */
  clear() {
    this.#channels.clear();
    this.#agents.clear();
  }

  #show(value) {
    this.#value = value;
    for (const name of ["event", "text"]) if ($(name).value !== value[name]) $(name).value = value[name];
    this.#channels.choose(value.channel);
    this.#agents.choose(value.agent);
    const patterns = patternsOf(value.event);
    for (const box of $("categories").querySelectorAll("input")) box.checked = patterns.includes(`${box.value}.*`);
    $("reset").hidden = Object.entries(AT_FIRST).every(([name, otherwise]) => value[name] === otherwise);
  }
}

/** What can be chosen in a list. */
class Choices {
  #select;
  #options = new Map();

  constructor(select) {
    this.#select = select;
  }

  see(value) {
    let option = this.#options.get(value);
    if (option === undefined) {
      option = new Option(value, value);
      const after = [...this.#select.options].slice(1).find((other) => other.value > value);
      this.#select.add(option, after ?? null);
    }
    this.#options.delete(value);
    this.#options.set(value, option);
    if (this.#options.size > CHOICES) this.#forget([...this.#options].find(([, other]) => !other.selected));
  }

  /** @param {string} value seen or not; empty for all */
  choose(value) {
    if (value) this.see(value);
    this.#select.value = value;
  }

  clear() {
    for (const choice of [...this.#options]) if (!choice[1].selected) this.#forget(choice);
  }

  #forget([value, option]) {
    this.#options.delete(value);
    option.remove();
  }
}
