/**
 * When the list of events stands still: while the button is pressed, the mouse is over it, or it is scrolled.
 */
import { $ } from "./dom.js";

export class Pause {
  #list;
  #changed;
  #pressed = false;
  #hovered = false;
  #scrolled = false;
  #on = false;

  /**
   * @param {HTMLElement} list
   * @param {(paused: boolean) => void} changed
   */
  constructor(list, changed) {
    this.#list = list;
    this.#changed = changed;
    // the button is over the list
    const around = list.parentElement;
    around.addEventListener("pointerenter", ({ pointerType }) => {
      this.#hovered = pointerType === "mouse";
      this.#look();
    });
    around.addEventListener("pointerleave", () => {
      this.#hovered = false;
      this.#look();
    });
    list.addEventListener("scroll", () => {
      this.#scrolled = list.scrollTop > 0;
      this.#look();
    });
    $("pause").addEventListener("click", () => this.toggle());
    $("held").addEventListener("click", () => this.#release());
  }

  /** @returns {boolean} */
  get on() {
    return this.#on;
  }

  toggle() {
    if (this.#on) this.#release();
    else this.press();
  }

  /** Pauses until the button is pressed again. */
  press() {
    this.#pressed = true;
    this.#look();
  }

  /** @param {number} waiting events that fit the filter and are not shown yet */
  tell(waiting) {
    const fresh = waiting ? `${waiting.toLocaleString("en")} new` : "";
    $("pause").textContent = !this.#on ? "Pause" : fresh ? `Resume (${fresh})` : "Resume";
    $("held").hidden = !this.#on;
    // where the list is not scrolled it is over a row that can be clicked, and the button above the list does the same
    $("held").disabled = !this.#scrolled;
    $("held").textContent = `Paused${fresh ? `, ${fresh}` : ""}${this.#scrolled ? " – resume" : ""}`;
  }

  /** Goes on, also if the mouse stays where it is. */
  #release() {
    this.#pressed = this.#hovered = this.#scrolled = false;
    this.#look();
    this.#list.scrollTop = 0;
  }

  #look() {
    const on = this.#pressed || this.#hovered || this.#scrolled;
    if (on === this.#on) return;
    this.#on = on;
    $("pause").setAttribute("aria-pressed", String(on));
    this.#changed(on);
  }
}
