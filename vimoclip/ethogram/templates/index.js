"use strict";
// The index of a folder: a time budget that chooses actions, transitions, and a table of videos with lanes. The data
// has the numbers of each video (see index_page.py); this script adds those of the videos that are shown.
(() => {
  const MATRIX = 12; // most rows and columns of the transitions
  const OWN_TRACKS = 8; // up to this number of actions, each has its own track in all lanes
  const LEGEND = 8; // actions in the legend, and in a tooltip
  const MARKS = 20; // videos with their own marks on the bars of the time budget
  const data = JSON.parse(byId("data").textContent);
  const { actions, colors } = data, tip = byId("tip"), all = actions.map((_, action) => action);
  const rows = [...byId("videos").querySelectorAll("tbody tr")];
  const videos = data.videos.map((video, i) => unpack(video, rows[i]));
  const chosen = new Set(); // actions; empty: all
  const order = { key: "name", direction: 1 }, collator = new Intl.Collator("en", { numeric: true });
  const longest = Math.max(0, ...videos.map((video) => video.seconds));
  let shown = []; // videos, sorted

  const inChoice = (action) => !chosen.size || chosen.has(action);
  const percent = (share, digits = 1) => (Number.isFinite(share) ? `${(share * 100).toFixed(digits)} %` : "–");
  const format = (count) => count.toLocaleString("en-US");
  const count = (number, name) => `${format(number)} ${name}${number === 1 ? "" : "s"}`;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  function* triples(flat) {
    for (let i = 0; i < flat.length; i += 3) yield [flat[i], flat[i + 1], flat[i + 2]];
  }

  function unpack(video, row) {
    const counts = new Uint32Array(actions.length), totals = new Float64Array(actions.length);
    for (const [action, bouts, seconds] of triples(video.totals)) {
      counts[action] = bouts;
      totals[action] = seconds;
    }
    const [title, lane, , bouts, total, share] = row.cells;
    const cells = { bouts, total, share }, canvas = lane.querySelector("canvas"), name = title.textContent;
    return { ...video, name, row, cells, canvas, counts, totals, classes: new Set(data.classes[video.classes]) };
  }

  // ---- canvases, drawn while they are visible

  const painters = new Map(), visible = new Set(); // canvas -> function that draws it
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target); else visible.delete(target);
      if (isIntersecting) painters.get(target)(); else target.width = 0; // frees its memory
    }
  }, { rootMargin: "300px" });

  function paint(canvas, painter) {
    painters.set(canvas, painter);
    observer.observe(canvas);
  }

  // ---- lanes

  const axis = byId("videos").querySelector("thead canvas");
  const spanOf = (video) => (byId("same").checked ? longest : video.seconds);

  // Return [action, start, stop] of the chosen bouts, in seconds.
  function boutsOf(video) {
    const found = [];
    let start = 0;
    for (const [action, step, length] of triples(video.bouts)) {
      start += step;
      if (inChoice(action)) found.push([action, start / 1000, (start + length) / 1000]);
    }
    return found;
  }

  function drawLane(video) {
    const { context, width, height } = prepareCanvas(video.canvas), scale = width / spanOf(video);
    context.fillStyle = hatching(context);
    context.fillRect(0, 0, video.seconds * scale, height);
    context.beginPath();
    for (const [start, stop] of video.observed) context.rect(start * scale, 0, (stop - start) * scale, height);
    context.clip();
    context.fillStyle = cssColor("--seen");
    context.fillRect(0, 0, width, height);
    const present = all.filter((action) => inChoice(action) && occurs[action]);
    if (present.length > OWN_TRACKS) return drawColumns(context, boutsOf(video), scale, width, height);
    const track = height / present.length, gap = Math.min(1, track / 8);
    for (const [action, start, stop] of boutsOf(video)) {
      context.fillStyle = colors[action];
      context.fillRect(start * scale, present.indexOf(action) * track + gap, Math.max(1, (stop - start) * scale), track - 2 * gap);
    }
  }

  // Stack the actions in each pixel column, each as high as the part of the column's time that it takes. Where they
  // overlap for more than this time, they share the height.
  function drawColumns(context, bouts, scale, width, height) {
    const columns = Array.from({ length: Math.ceil(width) }, () => new Map()); // action -> pixels
    for (const [action, start, stop] of bouts) {
      const last = Math.min(stop * scale, columns.length);
      for (let x = Math.floor(start * scale); x < last; x++) {
        columns[x].set(action, (columns[x].get(action) || 0) + Math.min(last, x + 1) - Math.max(start * scale, x));
      }
    }
    columns.forEach((parts, x) => {
      const unit = height / Math.max(1, sum([...parts.values()]));
      let y = height;
      for (const [action, part] of [...parts].sort(([a], [b]) => a - b)) {
        context.fillStyle = colors[action];
        context.fillRect(x, y - part * unit, 1, part * unit);
        y -= part * unit;
      }
    });
  }

  function describeLane(video) {
    const most = all.filter((action) => inChoice(action) && video.counts[action]).sort((a, b) => video.totals[b] - video.totals[a]);
    const parts = most.slice(0, 3).map((action) => `${actions[action]} ${percent(video.totals[action] / video.observed_seconds)}`);
    return parts.join(", ") || "no bouts";
  }

  byId("videos").addEventListener("pointermove", (event) => {
    const video = event.target.tagName === "CANVAS" && shown.find((item) => item.canvas === event.target);
    tip.hidden = true;
    if (!video) return;
    const box = video.canvas.getBoundingClientRect(), pixel = spanOf(video) / box.width;
    const time = (event.clientX - box.left) * pixel;
    if (time > video.seconds) return;
    const here = boutsOf(video).filter(([, start, stop]) => start <= time + pixel / 2 && time - pixel / 2 < stop);
    const lines = here.map(([action, start, stop]) => `${actions[action]}: ${clock(start)} to ${clock(stop)}`);
    const seen = video.observed.some(([start, stop]) => start <= time && time <= stop);
    if (lines.length > LEGEND) lines.splice(LEGEND, Infinity, `and ${lines.length - LEGEND} more`);
    showTip(tip, event, [clock(time), ...lines, ...(seen ? [] : ["not observed"])]);
  });

  // ---- time budget; its rows choose actions

  const budgetBody = byId("budget").querySelector("tbody"), scaleEnd = byId("budget").querySelector(".scale span:last-child");
  const occurs = all.map((action) => videos.some((video) => video.counts[action] > 0));
  const budget = all.map((action) => {
    const row = element("tr", "", budgetBody), head = element("th", "", row), label = element("label", "", head);
    head.scope = "row";
    const box = element("input", "", label), swatch = element("i", "", label, "swatch");
    Object.assign(box, { type: "checkbox", autocomplete: "off" });
    swatch.style.background = colors[action];
    element("span", actions[action], label);
    const canvas = element("canvas", "", element("td", "", row, "bar"));
    canvas.setAttribute("aria-hidden", "true");
    const cells = ["n", "n extra", "n", "n extra"].map((name) => element("td", "", row, name));
    box.addEventListener("change", () => choose(action, box.checked));
    return { action, row, box, canvas, cells };
  });
  let scaleMax = 1; // the share at the right end of the bars

  function addUp(action) {
    const seen = shown.filter((video) => video.classes.has(action) && video.observed_seconds > 0);
    const shares = seen.map((video) => video.totals[action] / video.observed_seconds);
    return {
      shares,
      share: sum(seen.map((video) => video.totals[action])) / sum(seen.map((video) => video.observed_seconds)),
      bouts: sum(shown.map((video) => video.counts[action])),
      videos: shown.filter((video) => video.counts[action]).length,
    };
  }

  function showBudget() {
    for (const item of budget) {
      Object.assign(item, addUp(item.action));
      const { shares, cells, row, box, action } = item, low = Math.min(...shares), high = Math.max(...shares);
      const texts = [percent(item.share), shares.length > 1 ? `${(low * 100).toFixed(1)}–${percent(high)}` : "", format(item.bouts), format(item.videos)];
      texts.forEach((text, i) => { cells[i].textContent = text; });
      row.classList.toggle("off", !inChoice(action) || !item.bouts);
      box.checked = chosen.has(action);
    }
    const highest = Math.max(0.01, ...budget.filter((item) => inChoice(item.action)).flatMap((item) => item.shares));
    scaleMax = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1].find((end) => end >= highest - 1e-9) || highest;
    scaleEnd.textContent = percent(scaleMax, 0);
  }

  function drawBar({ canvas, action, share, shares }) {
    const { context, width, height } = prepareCanvas(canvas), xOf = (value) => Math.min(1, value / scaleMax) * (width - 2);
    context.fillStyle = cssColor("--seen");
    context.fillRect(0, 0, width, height);
    if (!(share >= 0)) return;
    context.fillStyle = colors[action];
    context.fillRect(0, 3, xOf(share), height - 6);
    if (shares.length < 2) return;
    context.fillStyle = "rgb(27 31 36 / 75%)";
    if (shares.length <= MARKS) {
      for (const value of shares) context.fillRect(xOf(value), 0, 1.5, height);
      return;
    }
    const sorted = [...shares].sort((a, b) => a - b), xAt = (part) => xOf(sorted[Math.round(part * (sorted.length - 1))]);
    for (const part of [0, 0.5, 1]) context.fillRect(xAt(part), part === 0.5 ? 1 : 4, 1.5, part === 0.5 ? height - 2 : height - 8);
    context.fillRect(xAt(0), height / 2 - 0.5, xAt(1) - xAt(0), 1);
    context.fillRect(xAt(0.25), height / 2 - 2.5, xAt(0.75) - xAt(0.25), 5);
  }

  function choose(action, isChosen) {
    if (isChosen) chosen.add(action); else chosen.delete(action);
    update();
  }

  byId("clear").addEventListener("click", () => {
    chosen.clear();
    update();
  });
  byId("find-action").addEventListener("input", (event) => {
    for (const { row, action } of budget) row.hidden = !includes(actions[action], event.target.value);
  });
  const includes = (name, part) => name.toLowerCase().includes(part.trim().toLowerCase());

  function showLegend() {
    const legend = byId("legend"), listed = all.filter((action) => inChoice(action) && occurs[action]);
    const focused = [...legend.children].indexOf(document.activeElement);
    legend.replaceChildren();
    for (const action of listed.slice(0, LEGEND)) {
      const button = element("button", "", legend);
      element("i", "", button, "swatch").style.background = colors[action];
      element("b", actions[action], button);
      button.setAttribute("aria-pressed", chosen.has(action));
      button.title = chosen.has(action) ? `Without ${actions[action]}` : `Only ${actions[action]}`;
      button.addEventListener("click", () => choose(action, !chosen.has(action)));
    }
    if (listed.length > LEGEND) element("span", `and ${listed.length - LEGEND} more`, legend, "quiet");
    if (focused >= 0) legend.querySelectorAll("button")[Math.min(focused, listed.length - 1)]?.focus();
  }

  // ---- transitions

  function showTransitions() {
    const size = actions.length, counts = new Uint32Array(size * size);
    for (const video of shown) for (const [from, to, number] of triples(video.transitions)) counts[from * size + to] += number;
    const leaving = all.map((from) => sum(counts.subarray(from * size, (from + 1) * size)));
    const sources = most(all.filter((action) => inChoice(action) && leaving[action]), leaving);
    const arriving = all.map((to) => sum(sources.map((from) => counts[from * size + to])));
    const targets = most(all.filter((action) => arriving[action]), arriving);
    const table = byId("transitions").querySelector("table"), note = byId("transitions").querySelector("p");
    const hasRest = all.some((to) => arriving[to] && !targets.includes(to));
    table.replaceChildren();
    element("caption", "Probability of the next bout, in percent", table, "unseen");
    const head = element("tr", "", element("thead", "", table)), body = element("tbody", "", table);
    element("th", "bout ↓ next →", head);
    for (const to of [...targets, ...(hasRest ? [null] : [])]) {
      const cell = element("th", "", head, to === null ? "rest" : ""), name = to === null ? "others" : actions[to];
      cell.scope = "col";
      element("span", name, cell).title = name;
    }
    for (const from of sources) {
      const row = element("tr", "", body), title = element("th", actions[from], row);
      Object.assign(title, { scope: "row", title: actions[from] });
      const numbers = targets.map((to) => counts[from * size + to]);
      numbers.forEach((number, i) => addCell(row, number, leaving[from], `${actions[from]} → ${actions[targets[i]]}`));
      if (hasRest) addCell(row, leaving[from] - sum(numbers), leaving[from], `${actions[from]} → others`, "rest");
    }
    table.hidden = !sources.length;
    table.classList.toggle("few", targets.length <= 8);
    const possible = all.filter((action) => inChoice(action) && leaving[action]).length;
    const part = sources.length < possible ? `The ${sources.length} of ${possible} actions that most bouts follow. ` : "";
    note.textContent = sources.length ? `${part}Of the bouts after a bout of the row's action, the percentage that is of the column's. ` +
      "Pairs with unobserved time between them do not count." : "No bout follows another.";
  }

  const most = (list, numbers) => [...list].sort((a, b) => numbers[b] - numbers[a]).slice(0, MATRIX).sort((a, b) => a - b);

  function addCell(row, number, whole, pair, name) {
    const share = number / whole, text = share === 0 ? "" : share < 0.005 ? "<1" : String(Math.round(share * 100));
    const cell = element("td", text, row, name);
    cell.dataset.tip = `${pair}\n${format(number)} of ${format(whole)} (${percent(share)})`;
    cell.setAttribute("aria-label", `${percent(share)}, ${format(number)} of ${format(whole)}`);
    if (!number || name) return;
    cell.style.background = `color-mix(in srgb, var(--strong) ${Math.round(8 + 92 * share)}%, #fff)`;
    if (share > 0.86) cell.style.color = "#fff";
  }

  byId("transitions").addEventListener("pointermove", (event) => {
    tip.hidden = !event.target.dataset.tip;
    if (!tip.hidden) showTip(tip, event, event.target.dataset.tip.split("\n"));
  });
  for (const id of ["videos", "transitions"]) byId(id).addEventListener("pointerleave", () => { tip.hidden = true; });

  // ---- the table of videos

  const body = byId("videos").querySelector("tbody"), sorters = [...byId("videos").querySelectorAll("[data-sort]")];

  function showVideos() {
    for (const video of videos) {
      video.numbers = { seconds: video.seconds, bouts: 0, total: 0 };
      for (const action of all) {
        if (!inChoice(action)) continue;
        video.numbers.bouts += video.counts[action];
        video.numbers.total += video.totals[action];
      }
      video.numbers.share = video.numbers.total / video.observed_seconds;
    }
    shown = videos.filter((video) => includes(video.name, byId("find-video").value) && !(byId("only").checked && !video.numbers.bouts));
    const compare = (a, b) => (order.key === "name" ? 0 : (a.numbers[order.key] || 0) - (b.numbers[order.key] || 0));
    shown.sort((a, b) => order.direction * compare(a, b) || (order.key === "name" ? order.direction : 1) * collator.compare(a.name, b.name));
    for (const { cells, numbers, canvas, ...video } of shown) {
      cells.bouts.textContent = format(numbers.bouts);
      cells.total.textContent = clock(numbers.total);
      cells.share.textContent = percent(numbers.share);
      canvas.setAttribute("aria-label", describeLane(video));
    }
    body.replaceChildren(...shown.map((video) => video.row));
    byId("none").hidden = shown.length > 0;
    markOrder(sorters, order.key, order.direction);
  }

  for (const button of sorters) {
    button.addEventListener("click", () => {
      const key = button.dataset.sort;
      order.direction = key === order.key ? -order.direction : key === "name" ? 1 : -1;
      order.key = key;
      update();
    });
  }

  // ---- everything

  function showSummary() {
    const seconds = sum(shown.map((video) => video.seconds)), observed = sum(shown.map((video) => video.observed_seconds));
    const number = shown.length < videos.length ? `${format(shown.length)} of ${count(videos.length, "video")}` : count(videos.length, "video");
    const bouts = sum(shown.map((video) => video.numbers.bouts)), present = budget.filter((item) => inChoice(item.action) && item.bouts).length;
    const kinds = present < actions.length ? `${present} of ${count(actions.length, "action")}` : count(present, "action");
    const times = [`${clock(seconds)} in total`, `${clock(observed)} observed (${percent(observed / seconds)})`];
    byId("summary").textContent = [number, ...times, `${count(bouts, "bout")} of ${kinds}`].join(" · ");
  }

  function update() {
    showVideos();
    showBudget();
    showTransitions();
    showLegend();
    showSummary();
    const names = [...chosen].map((action) => actions[action]);
    byId("only").nextElementSibling.textContent = names.length > 2 ? `one of ${names.length} actions` : names.join(" or ") || "a bout";
    byId("clear").disabled = !chosen.size;
    redraw();
  }

  function redraw() {
    axis.hidden = !byId("same").checked;
    for (const canvas of visible) painters.get(canvas)();
    if (!axis.hidden) drawAxis(axis, { from: 0, span: longest });
  }

  const shortest = Math.min(...videos.map((video) => video.seconds));
  byId("same").checked = shortest > longest / 10; // lanes of much shorter videos would be too small
  byId("same").addEventListener("change", redraw);
  byId("only").addEventListener("change", update);
  byId("find-video").addEventListener("input", update);
  byId("budget").querySelector(".box").classList.toggle("short", actions.length < 14);
  update();
  for (const video of videos) paint(video.canvas, () => drawLane(video));
  for (const item of budget) paint(item.canvas, () => drawBar(item));
  new ResizeObserver(redraw).observe(byId("videos"));
  document.documentElement.dataset.drawn = String(videos.length);
})();
