"use strict";
// Functions that draw scores and bouts on canvases. `data`: the page's JSON; `codes`: of its scores; `view`: the visible part,
// {from, span} in seconds.
function drawer(data, codes, view) {
  const { edges, thresholds, unobserved } = data, windows = edges.length - 1;
  const colors = { strong: cssColor("--strong"), light: cssColor("--light"), mark: cssColor("--mark") };

  function windowAt(time) {
    let low = 0, high = windows - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (edges[middle] <= time) low = middle; else high = middle - 1;
    }
    return low;
  }

  const scoreIn = (action, window) => scoreOf(codes[action * windows + window]);
  const isObserved = (time) => !unobserved.some(([start, stop]) => start <= time && time < stop);
  const scoreAt = (action, time) => (isObserved(time) ? scoreIn(action, windowAt(time)) : null);

  const xOf = (time, width) => position(view, time, width);

  // Return a path with the highest score in each pixel column, so that short peaks stay visible in long videos.
  function area(action, width, top, bottom) {
    const path = new Path2D(), last = width - 1;
    let window = windowAt(view.from);
    path.moveTo(0, bottom);
    for (let x = 0; x < width; x++) {
      const pixelEnd = view.from + ((x + 1) / width) * view.span;
      let highest = 0;
      for (;;) {
        highest = Math.max(highest, scoreIn(action, window) || 0);
        if (window === windows - 1 || edges[window + 1] >= pixelEnd) break;
        window++;
      }
      const y = bottom - highest * (bottom - top);
      path.lineTo(x, y);
      path.lineTo(x === last ? width : x + 1, y);
    }
    path.lineTo(width, bottom);
    return path;
  }

  // Hatch the stretches that were not observed, so that they look different from a score of 0.
  function drawUnobserved(context, width, bottom) {
    for (const [start, stop] of unobserved) {
      const x = Math.max(0, xOf(start, width)), end = Math.min(width, xOf(stop, width));
      if (end <= x) continue;
      context.fillStyle = "#fff";
      context.fillRect(x, 0, end - x, bottom + 1);
      context.fillStyle = hatching(context);
      context.fillRect(x, 0, end - x, bottom + 1);
    }
  }

  function drawLane(lane) {
    const { context, width, height } = prepareCanvas(lane.canvas), bottom = height - 7, top = 3;
    context.fillStyle = "#eceff2";
    for (const time of ticks(view, width).times) context.fillRect(xOf(time, width) - 0.5, 0, 1, height);
    const path = area(lane.action, Math.floor(width), top, bottom), strong = new Path2D(), bars = new Path2D();
    for (const bout of lane.bouts) {
      const x = xOf(bout.start, width), end = xOf(bout.stop, width);
      if (end < 0 || x > width) continue;
      const barWidth = Math.max(1.5, end - x);
      strong.rect(x, 0, barWidth, height);
      bars.rect(x, bottom + 2, barWidth, 4);
    }
    context.fillStyle = colors.light;
    context.fill(path);
    context.fillStyle = colors.strong;
    context.fill(bars);
    context.save();
    context.clip(strong);
    context.fill(path);
    context.restore();
    drawUnobserved(context, width, bottom);
    const threshold = thresholds[lane.action];
    if (threshold !== null && threshold <= 1) {
      const y = Math.round(bottom - threshold * (bottom - top)) - 0.5;
      context.strokeStyle = colors.mark;
      context.setLineDash([4, 4]);
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
  }

  return { windowAt, isObserved, scoreAt, drawLane };
}
