/**
 * When the list of events stands still: while the button is pressed, the mouse is over it, or it is scrolled.
 */
import { $ } from "./dom.js";

export class Pause {
  #list;
  #changed;
  #pressed = false;
  #hovered = false;
  // whether the user has gone on under the mouse
  #released = false;
  // where the mouse was last
  #place = [];
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
    // a mouse that rests where a dialog was does not pause the list below
    for (const kind of ["pointerenter", "pointermove"]) around.addEventListener(kind, (event) => this.#enter(event));
    window.addEventListener("pointermove", ({ clientX, clientY }) => (this.#place = [clientX, clientY]));
    around.addEventListener("pointerleave", () => {
      this.#hovered = this.#released = false;
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
    this.#released = this.#hovered;
    this.#pressed = this.#hovered = this.#scrolled = false;
    this.#look();
    this.#list.scrollTop = 0;
  }

  #enter({ pointerType, clientX, clientY }) {
    const [x, y] = this.#place;
    if (pointerType !== "mouse" || this.#released || (clientX === x && clientY === y)) return;
    this.#hovered = true;
    this.#look();
  }

  #look() {
    const on = this.#pressed || this.#hovered || this.#scrolled;
    if (on === this.#on) return;
    this.#on = on;
    $("pause").setAttribute("aria-pressed", String(on));
    this.#changed(on);
  }
}
