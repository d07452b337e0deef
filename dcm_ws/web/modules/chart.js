/**
 * Events per second, by category, over the last ten minutes: one column for each five seconds.
 */
import { element } from "./dom.js";

const COLUMNS = 120;
const SECONDS = 5;

export class Chart {
  #canvas;
  #text;
  #columns = new Map();
  #categories;
  #marks = new Map();
  #began = Date.now();

  constructor(canvas, legend, text, categories) {
    this.#canvas = canvas;
    this.#text = text;
    this.#categories = categories;
    for (const category of categories) {
      const item = element("li");
      const mark = element("i");
      mark.style.setProperty("--c", `var(--${category})`);
      item.append(mark, category);
      this.#marks.set(category, mark);
      legend.append(item);
    }
    addEventListener("resize", () => this.draw());
    addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {number} now ms; an event of the log may have happened before there was this chart */
  count(category, now) {
    this.#began = Math.min(this.#began, now);
    const column = Math.floor(now / 1000 / SECONDS);
    let counts = this.#columns.get(column);
    if (counts === undefined) {
      counts = Object.fromEntries(this.#categories.map((name) => [name, 0]));
      this.#columns.set(column, counts);
    }
    counts[category] += 1;
  }

  /** Seconds of a column that the chart has events of; at least one, or a first event would tower over all. */
  #seconds(column, now) {
    return Math.max(1, Math.min((column + 1) * SECONDS, now / 1000) - Math.max(column * SECONDS, this.#began / 1000));
  }

  draw(now = Date.now()) {
    const last = Math.floor(now / 1000 / SECONDS);
    for (const column of this.#columns.keys()) if (column <= last - COLUMNS) this.#columns.delete(column);
    const style = getComputedStyle(this.#canvas);
    const width = this.#canvas.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = this.#canvas.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    const scale = devicePixelRatio || 1;
    if (width <= 0 || height <= 0) return;
    if (this.#canvas.width !== Math.round(width * scale)) this.#canvas.width = Math.round(width * scale);
    if (this.#canvas.height !== Math.round(height * scale)) this.#canvas.height = Math.round(height * scale);
    const pen = this.#canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const sums = new Map([...this.#columns].map(([column, counts]) => [column, this.#categories.reduce((sum, name) => sum + counts[name], 0)]));
    const totals = [...sums].map(([column, sum]) => sum / this.#seconds(column, now));
    const most = nice(Math.max(1, ...totals));
    const left = 30;
    // a custom property is not resolved for the theme, and the colour of an element is
    const colour = (name) => getComputedStyle(this.#marks.get(name)).backgroundColor;
    const colours = new Map(this.#categories.map((name) => [name, colour(name)]));
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(height - 6 - share * (height - 14)) + 0.5;
      pen.fillStyle = style.borderTopColor;
      pen.fillRect(left, y, width - left, 1);
      pen.fillStyle = style.color;
      pen.globalAlpha = 0.65;
      pen.fillText(String(most * share), left - 6, y);
      pen.globalAlpha = 1;
    }
    const step = (width - left) / COLUMNS;
    for (const [column, counts] of this.#columns) {
      let y = height - 6;
      const x = left + (COLUMNS - 1 - (last - column)) * step;
      const seconds = this.#seconds(column, now);
      for (const name of this.#categories) {
        if (!counts[name]) continue;
        const tall = ((counts[name] / seconds) * (height - 14)) / most;
        pen.fillStyle = colours.get(name);
        pen.fillRect(x, y - tall, Math.max(1, step - 1), tall);
        y -= tall;
      }
    }
    const shown = Math.max(1, Math.min(COLUMNS * SECONDS, (now - this.#began) / 1000));
    const mean = [...sums.values()].reduce((sum, count) => sum + count, 0) / shown;
    this.#text.textContent = `On average ${mean.toFixed(1)} events per second, at most ${Math.max(0, ...totals).toFixed(1)}.`;
  }
}

function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= most);
}
