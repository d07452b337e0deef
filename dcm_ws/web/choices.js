/**
 * What can be chosen in a list: the values seen last.
 */
const CHOICES = 200;

export class Choices {
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
