"use strict";
// The timeline page: lanes of actions, thresholds, and the table of bouts.
(() => {
  const ROWS = 300; // rows of the table that are shown at first
  const data = JSON.parse(byId("data").textContent);
  const { thresholds, classes } = data;
  const codes = unpackScores(data.scores), deviations = unpackScores(data.score_sd), windows = data.edges.length - 1;
  const player = makePlayer({ draw, show, describe, keys: { n: () => jump(1), p: () => jump(-1) } });
  const { windowAt, isObserved, scoreAt, drawLane } = drawer(data, codes, player.view);
  const given = { bouts: data.bouts.map(([action, start, stop, score]) => ({ action, start, stop, score })), thresholds: [...thresholds] };
  const box = byId("lanes");
  const lanes = []; // {action, bouts, row, canvas, number, slider, value, reset}
  const TOLERANCE = 1e-3; // seconds; after a seek, currentTime may be slightly before the requested time
  let shownWindow = -1;
  let bouts = given.bouts, chosen = bouts; // at the current thresholds, sorted; those in the table

  // ---- drawing

  function draw() {
    lanes.filter((lane) => !lane.row.hidden).forEach(drawLane);
  }

  function addLanes(actions) {
    for (const action of actions) {
      const row = element("div", "", box, "lane"), label = element("span", "", row, "label");
      addName(action, label);
      const number = element("span", "", label, "score"), canvas = row.appendChild(document.createElement("canvas"));
      const lane = { action, row, canvas, number, bouts: bouts.filter((bout) => bout.action === action) };
      lanes.push(Object.assign(lane, addSlider(action, label)));
      showThreshold(lane);
    }
  }

  // The name of an action, and a mark if what was fitted for it rests on few clips.
  function addName(action, label) {
    const count = data.positives[action], name = element("span", "", label, "name");
    element("b", classes[action], name);
    name.title = classes[action];
    if (count === null) return;
    const clips = `calibration, and threshold unless it was given, fitted on ${count} positive clip${count === 1 ? "" : "s"}`;
    name.title += `\n${clips}`;
    if (count >= data.min_positives) return;
    const mark = element("span", "*", name, "few");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", clips);
  }

  // ---- current time

  function show() {
    const time = player.now + TOLERANCE, window = isObserved(time) ? windowAt(time) : null;
    markBouts();
    if (window === shownWindow) return;
    shownWindow = window;
    for (const lane of lanes) {
      const score = scoreAt(lane.action, time);
      lane.number.textContent = score === null ? "–" : score.toFixed(2);
    }
  }

  function markBouts() {
    const time = player.now + TOLERANCE, isNow = (bout) => bout.start <= time && time < bout.stop;
    for (const lane of lanes) lane.row.classList.toggle("now", lane.bouts.some(isNow));
    for (const row of body.rows) row.classList.toggle("now", isNow(chosen[row.dataset.bout]));
  }

  const jump = (direction) => player.jump(chosen.map((bout) => bout.start), direction);

  // Return the lines of the tooltip.
  function describe(canvas, time) {
    const lane = lanes.find((item) => item.canvas === canvas), lines = [clock(time)];
    if (!lane) return lines;
    const score = scoreAt(lane.action, time), threshold = thresholds[lane.action];
    lines[0] += ` ${classes[lane.action]}`;
    const found = isObserved(time) ? `score ${score === null ? "–" : score.toFixed(3) + deviation(lane.action, time)}` : "not observed";
    lines.push(found + (threshold === null ? "" : `, threshold ${threshold.toFixed(3)}`));
    const bout = lane.bouts.find((item) => item.start <= time && time < item.stop);
    if (bout) lines.push(`bout ${clock(bout.start)} to ${clock(bout.stop)}, mean ${bout.score.toFixed(3)}`);
    return lines;
  }

  // The standard deviation of a score over several runs; "" if it is of one run.
  function deviation(action, time) {
    return deviations.length ? ` ± ${scoreOf(deviations[action * windows + windowAt(time)]).toFixed(3)}` : "";
  }

  for (const [id, direction] of [["previous", -1], ["next", 1]]) byId(id).addEventListener("click", () => jump(direction));

  const more = byId("more");
  more.addEventListener("click", () => {
    if (lanes.length < data.order.length) addLanes(data.order.slice(lanes.length));
    else lanes.forEach((lane, i) => { lane.row.hidden = i >= data.shown && !lane.row.hidden; });
    relabel();
    shownWindow = -1;
    player.redraw();
    show();
    more.scrollIntoView({ block: "nearest" });
  });
  function relabel() {
    more.hidden = data.shown === data.order.length;
    more.textContent = lanes.at(-1).row.hidden || lanes.length === data.shown ? `Show all ${data.order.length} actions` : `Show ${data.shown} actions`;
  }

  // ---- thresholds

  const thousandths = (number) => Number(number.toFixed(3));
  const format = (threshold) => (threshold === null ? "none" : threshold.toFixed(3));
  const isChanged = (action) => thresholds[action] !== given.thresholds[action];

  function addSlider(action, label) {
    const slider = element("input", "", label), reset = element("button", "↺", label, "reset"), value = element("span", "", label, "value");
    Object.assign(slider, { type: "range", title: "Threshold", min: 0, max: 1, step: 0.001, autocomplete: "off" });
    slider.setAttribute("aria-label", `Threshold of ${classes[action]}`);
    reset.setAttribute("aria-label", `Reset the threshold of ${classes[action]}`);
    reset.title = `Reset to ${format(given.thresholds[action])}`;
    slider.addEventListener("input", () => setThresholds([action], thousandths(slider.valueAsNumber)));
    slider.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!direction || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const step = event.shiftKey ? 0.001 : 0.01;
      setThresholds([action], thousandths(clamp(slider.valueAsNumber + direction * step, 0, 1)));
    });
    reset.addEventListener("click", () => {
      setThresholds([action]);
      slider.focus(); // the button disappears
    });
    return { slider, reset, value };
  }

  // Set the threshold of some actions; default: those of predict.py, with its bouts.
  function setThresholds(actions, threshold) {
    for (const action of actions) {
      thresholds[action] = threshold === undefined ? given.thresholds[action] : threshold;
      const found = isChanged(action) ? boutsAt(action, threshold) : given.bouts.filter((bout) => bout.action === action);
      bouts = [...bouts.filter((bout) => bout.action !== action), ...found].sort((a, b) => a.start - b.start || a.action - b.action);
      const lane = lanes.find((item) => item.action === action);
      lane.bouts = found;
      showThreshold(lane);
      if (!lane.row.hidden) drawLane(lane);
    }
    list();
  }

  function boutsAt(action, threshold) {
    const found = findBouts(data, codes.subarray(action * windows, (action + 1) * windows), threshold);
    return found.map(([start, stop, score]) => ({ action, start, stop, score }));
  }

  function showThreshold({ action, slider, value, reset }) {
    const threshold = thresholds[action];
    slider.value = threshold === null ? 1 : threshold;
    slider.classList.toggle("none", threshold === null);
    slider.setAttribute("aria-valuetext", format(threshold));
    value.textContent = format(threshold);
    value.classList.toggle("changed", isChanged(action));
    reset.classList.toggle("unused", !isChanged(action));
  }

  function showChanges() {
    const changed = data.order.filter(isChanged);
    const texts = changed.map((a) => `${classes[a]} ${format(thresholds[a])} (was ${format(given.thresholds[a])})`);
    byId("changes").hidden = !changed.length;
    byId("changes").firstElementChild.textContent = `Changed thresholds: ${texts.join(", ")}.`;
  }
  byId("reset").addEventListener("click", () => setThresholds(data.order.filter(isChanged)));

  function save() {
    const rows = bouts.map((bout) => [data.video, classes[bout.action], bout.start, bout.stop, bout.score]);
    const url = URL.createObjectURL(new Blob([formatCsv([data.csv_columns, ...rows])], { type: "text/csv" }));
    Object.assign(document.createElement("a"), { href: url, download: data.csv_name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000); // some browsers read it only after a dialog
  }
  byId("save").addEventListener("click", save);

  // ---- the table

  const body = byId("bouts").querySelector("tbody"), picker = byId("action"), rest = byId("rest");

  function fill(from, to) {
    const rows = document.createDocumentFragment();
    chosen.slice(from, to).forEach((bout, i) => {
      const row = element("tr", "", rows);
      row.dataset.bout = from + i;
      element("button", clock(bout.start), element("td", "", row, "n"));
      element("td", clock(bout.stop), row, "n");
      element("td", `${(bout.stop - bout.start).toFixed(1)} s`, row, "n extra");
      element("td", classes[bout.action], row);
      element("td", bout.score.toFixed(2), row, "n");
    });
    body.appendChild(rows);
    rest.hidden = body.rows.length === chosen.length;
    rest.textContent = `Show ${chosen.length - body.rows.length} more`;
    markBouts();
  }

  // Show the bouts of the action that is picked.
  function pick(rows = ROWS) {
    const action = picker.value === "" ? null : Number(picker.value);
    chosen = bouts.filter((bout) => action === null || bout.action === action);
    body.replaceChildren();
    fill(0, rows);
  }

  // Show the current bouts and their number.
  function list() {
    const counts = new Map(), picked = picker.value;
    for (const bout of bouts) counts.set(bout.action, (counts.get(bout.action) || 0) + 1);
    picker.replaceChildren();
    element("option", `all (${bouts.length})`, picker).value = "";
    for (const action of data.order) {
      if (counts.has(action) || picked === String(action)) element("option", `${classes[action]} (${counts.get(action) || 0})`, picker).value = action;
    }
    picker.value = picked;
    byId("count").textContent = `${bouts.length.toLocaleString("en-US")} bout${bouts.length === 1 ? "" : "s"}`;
    byId("none").hidden = bouts.length > 0;
    byId("found").hidden = byId("previous").disabled = byId("next").disabled = !bouts.length;
    showChanges();
    pick(Math.max(ROWS, body.rows.length));
  }

  picker.addEventListener("change", () => pick());
  rest.addEventListener("click", () => fill(body.rows.length, chosen.length));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) player.seek(chosen[row.dataset.bout].start);
  });

  addLanes(data.order.slice(0, data.shown));
  relabel();
  list();
  player.open({ seconds: data.seconds, step: 1 / data.fps });
  document.documentElement.dataset.drawn = String(lanes.length);
})();
