"use strict";
// Draws scores and bouts on canvas: `data`, what the page holds; `view`, the part of it that is looked at.
function drawer(data, view) {
  const TOP = 65534, NONE = 65535; // a score of 1, and none
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
  const { edges, thresholds } = data, windows = edges.length - 1;
  const scores = new Uint16Array(Uint8Array.from(atob(data.scores), (letter) => letter.charCodeAt(0)).buffer);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  const colors = { strong: css("--strong"), light: css("--light"), mark: css("--mark") };
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  function clock(time, digits = 1) {
    const unit = 10 ** digits, units = Math.round(time * unit), whole = Math.floor(units / unit);
    const two = (number) => String(number).padStart(2, "0");
    const rest = digits ? "." + String(units % unit).padStart(digits, "0") : "";
    return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${rest}`;
  }

  function windowAt(time) {
    let low = 0, high = windows - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (edges[middle] <= time) low = middle; else high = middle - 1;
    }
    return low;
  }

  const scoreAt = (action, window) => {
    const packed = scores[action * windows + window];
    return packed === NONE ? null : packed / TOP;
  };

  const xOf = (time, width) => ((time - view.from) / view.span) * width;

  function prepared(canvas) {
    const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return { pen, width, height };
  }

  function ticks(width) {
    const step = STEPS.find((each) => (each / view.span) * width >= 92) || STEPS.at(-1);
    const first = Math.ceil(view.from / step - 1e-9), count = Math.floor((view.from + view.span) / step + 1e-9) - first + 1;
    return { step, times: Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step) };
  }

  function drawAxis(canvas) {
    const { pen, width, height } = prepared(canvas), { step, times } = ticks(width);
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = "#555b63";
    let end = 0; // of the label before
    for (const time of times) {
      const x = xOf(time, width), text = clock(time, step < 1 ? 1 : 0), wide = pen.measureText(text).width;
      pen.fillRect(x - 0.5, height - 6, 1, 6);
      const left = clamp(x - wide / 2, 6, width - wide);
      if (left < end) continue;
      pen.fillText(text, left, 14);
      end = left + wide + 8;
    }
  }

  // the highest score in each pixel, as steps: no short peak is lost in a long video
  function area(action, width, top, bottom) {
    const path = new Path2D(), last = width - 1;
    let window = windowAt(view.from);
    path.moveTo(0, bottom);
    for (let x = 0; x < width; x++) {
      const until = view.from + ((x + 1) / width) * view.span;
      let most = 0;
      for (;;) {
        most = Math.max(most, scoreAt(action, window) || 0);
        if (window === windows - 1 || edges[window + 1] >= until) break;
        window++;
      }
      const y = bottom - most * (bottom - top);
      path.lineTo(x, y);
      path.lineTo(x === last ? width : x + 1, y);
    }
    path.lineTo(width, bottom);
    return path;
  }

  function drawLane(lane) {
    const { pen, width, height } = prepared(lane.canvas), bottom = height - 7, top = 3;
    pen.fillStyle = "#eceff2";
    for (const time of ticks(width).times) pen.fillRect(xOf(time, width) - 0.5, 0, 1, height);
    const path = area(lane.action, Math.floor(width), top, bottom), strong = new Path2D(), bars = new Path2D();
    for (const bout of lane.bouts) {
      const x = xOf(bout.start, width), end = xOf(bout.stop, width);
      if (end < 0 || x > width) continue;
      const wide = Math.max(1.5, end - x);
      strong.rect(x, 0, wide, height);
      bars.rect(x, bottom + 2, wide, 4);
    }
    pen.fillStyle = colors.light;
    pen.fill(path);
    pen.fillStyle = colors.strong;
    pen.fill(bars);
    pen.save();
    pen.clip(strong);
    pen.fill(path);
    pen.restore();
    const threshold = thresholds[lane.action];
    if (threshold !== null && threshold <= 1) {
      const y = Math.round(bottom - threshold * (bottom - top)) - 0.5;
      pen.strokeStyle = colors.mark;
      pen.setLineDash([4, 4]);
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
    }
  }

  return { clamp, clock, windowAt, scoreAt, xOf, drawAxis, drawLane };
}
