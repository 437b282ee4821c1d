"use strict";
// What pages with lanes share: times, elements, canvases and their time axis, tooltips, sorted tables.
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function clock(time, digits = 1) {
  const unit = 10 ** digits, units = Math.round(time * unit), whole = Math.floor(units / unit);
  const two = (number) => String(number).padStart(2, "0");
  const rest = digits ? "." + String(units % unit).padStart(digits, "0") : "";
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${rest}`;
}

function element(tag, text, parent, name) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return parent.appendChild(node);
}

const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function prepareCanvas(canvas) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return { context, width, height };
}

// Return a pattern for stretches that were not observed.
function hatching(context) {
  const size = 8, tile = Object.assign(document.createElement("canvas"), { width: size, height: size }), pen = tile.getContext("2d");
  pen.strokeStyle = cssColor("--hatching");
  for (const x of [-size, 0, size]) {
    pen.moveTo(x, size);
    pen.lineTo(x + size, 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

// Return the pixel of a time. `view`: the visible part, {from, span} in seconds; `width`: of the canvas.
const position = (view, time, width) => ((time - view.from) / view.span) * width;

// Return the step and times of ticks about 100 pixels apart.
function ticks(view, width) {
  const TICK_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
  const step = TICK_STEPS.find((seconds) => (seconds / view.span) * width >= 92) || TICK_STEPS.at(-1);
  const first = Math.ceil(view.from / step - 1e-9), count = Math.floor((view.from + view.span) / step + 1e-9) - first + 1;
  return { step, times: Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step) };
}

// `margin`: pixels before the first label.
function drawAxis(canvas, view, margin = 0) {
  const { context, width, height } = prepareCanvas(canvas), { step, times } = ticks(view, width);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = cssColor("--quiet");
  let end = 0; // right end of the previous label
  for (const time of times) {
    const x = position(view, time, width), text = clock(time, step < 1 ? 1 : 0), textWidth = context.measureText(text).width;
    context.fillRect(x - 0.5, height - 6, 1, 6);
    const left = clamp(x - textWidth / 2, margin, width - textWidth);
    if (left < end) continue;
    context.fillText(text, left, 14);
    end = left + textWidth + 8;
  }
}

// Show lines of text beside the pointer.
function showTip(tip, event, lines) {
  tip.hidden = false;
  tip.textContent = lines.join("\n");
  const left = clamp(event.clientX + 14, 4, Math.max(4, innerWidth - tip.offsetWidth - 4));
  const above = event.clientY - tip.offsetHeight - 12;
  tip.style.transform = `translate(${left}px, ${above > 4 ? above : event.clientY + 20}px)`;
}

// Mark the heading by which a table is sorted. `buttons`: of the headings, the last child of which is the mark.
function markOrder(buttons, key, direction) {
  for (const button of buttons) {
    const isKey = button.dataset.sort === key, heading = button.closest("th");
    button.lastElementChild.textContent = isKey ? (direction > 0 ? "▲" : "▼") : "";
    if (isKey) heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else heading.removeAttribute("aria-sort");
  }
}
