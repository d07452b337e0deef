/**
 * What the pages' modules do with the document.
 */
export const $ = (id) => document.getElementById(id);

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** How whole numbers are written, the same for everybody. */
export const whole = new Intl.NumberFormat("en");

/** Call `paint` at most once a frame, and only when asked to. */
export function onceAFrame(paint) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  };
}
