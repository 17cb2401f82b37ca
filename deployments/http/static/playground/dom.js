export const $ = (id) => document.getElementById(id);

/** A new element. props: of the element; `aria-…` and `data-…` are attributes. */
export function el(name, props = {}, ...children) {
  const made = document.createElement(name);
  for (const [prop, value] of Object.entries(props)) {
    if (prop.includes("-") || prop === "role") made.setAttribute(prop, value);
    else made[prop] = value;
  }
  made.append(...children);
  return made;
}

/** A new element of SVG. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}
