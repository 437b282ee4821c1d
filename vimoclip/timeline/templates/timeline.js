"use strict";
// The timeline page: lanes of actions, a playhead in sync with the video, pointer and keys, thresholds, and the table of bouts.
(() => {
  const ROWS = 300; // rows of the table that are shown at first
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { seconds, thresholds, classes } = data, view = { from: 0, span: seconds };
  const codes = unpackScores(data.scores), windows = data.edges.length - 1;
  const { windowAt, isObserved, scoreAt, xOf, drawLane } = drawer(data, codes, view);
  const given = { bouts: data.bouts.map(([action, start, stop, score]) => ({ action, start, stop, score })), thresholds: [...thresholds] };
  const video = byId("video"), box = byId("lanes"), axis = byId("axis"), playhead = byId("playhead"), tip = byId("tip");
  const lanes = []; // {action, bouts, row, canvas, number, slider, value, reset}
  const TOLERANCE = 1e-3; // seconds; after a seek, currentTime may be slightly before the requested time
  let now = 0, origin = null; // seconds since the first frame; currentTime of the first frame, null until it is loaded
  let playable = true, dragging = null, shownWindow = -1;
  let bouts = given.bouts, chosen = bouts; // at the current thresholds, sorted; those in the table

  // ---- drawing

  function draw() {
    drawAxis(axis.querySelector("canvas"), view, 6); // beside the playhead
    lanes.filter((lane) => !lane.row.hidden).forEach(drawLane);
    const rest = seconds - view.span, pan = byId("pan");
    pan.hidden = rest <= 1e-6;
    pan.value = rest > 0 ? (view.from / rest) * 1000 : 0;
    byId("out").disabled = byId("all").disabled = pan.hidden;
    byId("in").disabled = view.span <= shortest();
    place();
  }

  function place() {
    const canvas = axis.querySelector("canvas"), x = xOf(now, canvas.clientWidth);
    playhead.hidden = x < -0.5 || x > canvas.clientWidth + 0.5;
    playhead.style.transform = `translateX(${canvas.offsetLeft + x}px)`;
    playhead.style.height = `${box.scrollHeight}px`;
  }

  function addLanes(actions) {
    for (const action of actions) {
      const row = element("div", "", box, "lane"), label = element("span", "", row, "label");
      element("b", classes[action], label).title = classes[action];
      const number = element("span", "", label, "score"), canvas = row.appendChild(document.createElement("canvas"));
      const lane = { action, row, canvas, number, bouts: bouts.filter((bout) => bout.action === action) };
      lanes.push(Object.assign(lane, addSlider(action, label)));
      showThreshold(lane);
    }
  }

  // ---- current time

  function show() {
    place();
    byId("clock").firstChild.textContent = clock(now);
    const window = isObserved(now + TOLERANCE) ? windowAt(now + TOLERANCE) : null;
    axis.setAttribute("aria-valuenow", now.toFixed(1));
    axis.setAttribute("aria-valuetext", clock(now));
    markBouts();
    if (window === shownWindow) return;
    shownWindow = window;
    for (const lane of lanes) {
      const score = scoreAt(lane.action, now + TOLERANCE);
      lane.number.textContent = score === null ? "–" : score.toFixed(2);
    }
  }

  function markBouts() {
    const isNow = (bout) => bout.start <= now + TOLERANCE && now + TOLERANCE < bout.stop;
    for (const lane of lanes) lane.row.classList.toggle("now", lane.bouts.some(isNow));
    for (const row of body.rows) row.classList.toggle("now", isNow(chosen[row.dataset.bout]));
  }

  function follow() {
    if (now >= view.from && now <= view.from + view.span) return;
    setView(now - view.span / 10, view.span);
  }

  function seek(time) {
    now = clamp(time, 0, seconds);
    if (playable && origin !== null) video.currentTime = origin + now;
    if (!dragging) follow();
    show();
  }

  function fromVideo() {
    if (origin === null) return;
    now = clamp(video.currentTime - origin, 0, seconds);
    if (!dragging) follow();
    show();
  }

  function run() {
    fromVideo();
    if (!video.paused && !video.ended) requestAnimationFrame(run);
  }

  function toggle() {
    if (!playable) return;
    if (video.paused) video.play().catch(() => {}); else video.pause();
  }

  function jump(direction) {
    const margin = video.paused ? 0.01 : 0.5; // during playback, a second press reaches the bout before
    const starts = chosen.map((bout) => bout.start);
    const found = direction > 0 ? starts.find((start) => start > now + 0.01) : starts.findLast((start) => start < now - margin);
    if (found !== undefined) seek(found);
  }

  // ---- visible part

  const shortest = () => Math.min(seconds, Math.max(2, 20 / data.fps));

  function setView(from, span) {
    view.span = clamp(span, shortest(), seconds);
    view.from = clamp(from, 0, seconds - view.span);
    draw();
  }

  function zoom(factor, center = now >= view.from && now <= view.from + view.span ? now : view.from + view.span / 2) {
    const span = clamp(view.span * factor, shortest(), seconds);
    setView(center - ((center - view.from) / view.span) * span, span);
  }

  // ---- pointer and keys

  const timeAt = (event) => {
    const box = axis.querySelector("canvas").getBoundingClientRect();
    return view.from + clamp((event.clientX - box.left) / box.width, 0, 1) * view.span;
  };

  box.addEventListener("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS" || event.button) return;
    dragging = event.target;
    dragging.setPointerCapture(event.pointerId);
    seek(timeAt(event));
  });
  box.addEventListener("pointermove", (event) => {
    if (dragging) seek(timeAt(event));
    hover(event);
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { dragging = null; });
  for (const end of ["pointerleave", "pointercancel"]) box.addEventListener(end, () => { tip.hidden = true; });

  function hover(event) {
    const over = dragging || event.target, lane = lanes.find((item) => item.canvas === over);
    tip.hidden = over.tagName !== "CANVAS";
    if (tip.hidden) return;
    const time = timeAt(event), lines = [clock(time)];
    if (lane) {
      const score = scoreAt(lane.action, time), threshold = thresholds[lane.action];
      lines[0] += ` ${classes[lane.action]}`;
      const found = isObserved(time) ? `score ${score === null ? "–" : score.toFixed(3)}` : "not observed";
      lines.push(found + (threshold === null ? "" : `, threshold ${threshold.toFixed(3)}`));
      const bout = lane.bouts.find((item) => item.start <= time && time < item.stop);
      if (bout) lines.push(`bout ${clock(bout.start)} to ${clock(bout.stop)}, mean ${bout.score.toFixed(3)}`);
    }
    showTip(tip, event, lines);
  }

  box.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event));
    else if (Math.abs(sideways) > 0 && view.span < seconds) setView(view.from + (sideways / 800) * view.span, view.span);
    else return;
    event.preventDefault();
  }, { passive: false });

  const keys = {
    " ": toggle, n: () => jump(1), p: () => jump(-1), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    ArrowLeft: (event) => seek(now - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => seek(now + (event.shiftKey ? 10 : 1)),
    ",": () => seek(now - 1 / data.fps), ".": () => seek(now + 1 / data.fps), Home: () => seek(0), End: () => seek(seconds),
  };
  // in the capture phase, as the controls of the video would handle the key as well
  document.addEventListener("keydown", (event) => {
    const key = keys[event.key], tag = event.target.tagName;
    if (!key || event.ctrlKey || event.metaKey || event.altKey || tag === "SELECT" || tag === "INPUT") return;
    if (event.key === " " && tag === "BUTTON") return;
    event.preventDefault();
    event.stopPropagation();
    key(event);
  }, true);

  const buttons = { previous: () => jump(-1), next: () => jump(1), play: toggle, in: () => zoom(0.5), out: () => zoom(2), all: () => setView(0, seconds) };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
  byId("pan").addEventListener("input", (event) => setView((event.target.value / 1000) * (seconds - view.span), view.span));

  const more = byId("more");
  more.addEventListener("click", () => {
    if (lanes.length < data.order.length) addLanes(data.order.slice(lanes.length));
    else lanes.forEach((lane, i) => { lane.row.hidden = i >= data.shown && !lane.row.hidden; });
    relabel();
    shownWindow = -1;
    draw();
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
    if (row) seek(chosen[row.dataset.bout].start);
  });

  // ---- the video

  function cannotPlay(fails) {
    playable = !fails;
    video.hidden = fails;
    byId("unplayable").hidden = !fails;
    byId("play").disabled = fails;
  }

  function ready() {
    origin = video.currentTime; // 0 in most videos
    if (now > 0) seek(now); // a time chosen before the video was loaded
  }

  const label = () => { byId("play").textContent = video.paused ? "Play" : "Pause"; };
  video.addEventListener("error", () => cannotPlay(true));
  video.querySelector("source:last-of-type").addEventListener("error", () => cannotPlay(true));
  video.addEventListener("loadedmetadata", () => cannotPlay(video.videoWidth === 0)); // the browser reads only the sound
  video.addEventListener("loadeddata", ready);
  for (const name of ["timeupdate", "seeking", "seeked", "ended"]) video.addEventListener(name, fromVideo);
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, label);
  video.addEventListener("play", run);
  byId("file").addEventListener("change", (event) => {
    if (!event.target.files.length) return;
    origin = null;
    video.src = URL.createObjectURL(event.target.files[0]);
  });

  element("span", "", byId("clock"));
  element("small", ` / ${clock(seconds)}`, byId("clock"));
  addLanes(data.order.slice(0, data.shown));
  relabel();
  list();
  new ResizeObserver(draw).observe(axis);
  if (video.error || video.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) cannotPlay(true); // the event has passed
  if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) ready();
  draw();
  show();
  document.documentElement.dataset.drawn = String(lanes.length);
})();
