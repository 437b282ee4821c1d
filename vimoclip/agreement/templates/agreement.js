"use strict";
// The page of two codings: a list of films, lanes of both codings of one film, and the differences between them.
(() => {
  const TOLERANCE = 1e-3; // seconds; after a seek, currentTime may be slightly before the requested time
  const LEAST_WIDTH = 2, POINT_WIDTH = 3; // pixels: of a bout, so that it is visible in a long film, and of a point event
  const SIDES = ["coded", "predicted"], DIFFERENCES = ["missed", "added"]; // what only this side has
  const { actions, step, films } = JSON.parse(byId("data").textContent);
  const player = makePlayer({ draw, show, describe, keys: { n: () => jump(1), p: () => jump(-1) } });
  const colors = SIDES.map((side) => ({ both: cssColor(`--${side}-both`), only: cssColor(`--${side}`) }));
  const lanes = actions.map(addLane);
  let notCompared = [], differences = []; // spans; those that n and p seek, by time

  // ---- spans: sorted lists of [start, stop] that do not overlap, in seconds

  function unpackSpans(steps = []) {
    const spans = [];
    for (let i = 0, start = 0; i < steps.length; i += 2) {
      start += steps[i];
      spans.push([start / 1000, (start + steps[i + 1]) / 1000]);
    }
    return spans;
  }

  function join(spans) {
    const joined = [];
    for (const [start, stop] of [...spans].sort((a, b) => a[0] - b[0])) {
      const last = joined.at(-1);
      if (last && start <= last[1]) last[1] = Math.max(last[1], stop); else joined.push([start, stop]);
    }
    return joined;
  }

  function subtract(spans, others) {
    const rest = [];
    let first = 0; // of the others that may reach into a span
    for (let [start, stop] of spans) {
      while (first < others.length && others[first][1] <= start) first++;
      for (let i = first; i < others.length && others[i][0] < stop; i++) {
        if (others[i][0] > start) rest.push([start, others[i][0]]);
        start = others[i][1];
      }
      if (start < stop) rest.push([start, stop]);
    }
    return rest;
  }

  const spanAt = (spans, time) => spans.find(([start, stop]) => start <= time && time < stop);

  // ---- a film

  // Return bouts, points and unknown spans of an action in one coding. `present`: where samples have the action.
  function unpackSide(packed, action) {
    const bouts = unpackSpans(packed.bouts[action]), unknown = unpackSpans(packed.unknown[action]);
    const points = (packed.points[action] || []).map((time) => time / 1000);
    return { bouts, points, unknown, present: join([...bouts, ...points.map((time) => [time - step / 2, time + step / 2])]) };
  }

  // Return what one side of a lane has and the other has not. `at`: where to seek.
  function findDifferences(lane, side, excluded) {
    const own = lane.sides[side], whole = new Map(own.present);
    return subtract(subtract(own.present, lane.sides[1 - side].present), excluded).map(([start, stop]) => {
      const point = own.points.find((time) => start <= time && time <= stop);
      return { lane, side, start, stop, point, at: Math.max(0, point ?? start), isWhole: whole.get(start) === stop };
    });
  }

  function fill(lane, film) {
    lane.sides = film.sides.map((packed) => unpackSide(packed, lane.action));
    const excluded = join([...notCompared, ...lane.sides.flatMap((side) => side.unknown)]);
    lane.differences = [0, 1].map((side) => findDifferences(lane, side, excluded));
    lane.isEmpty = lane.sides.every((side) => !side.present.length && !side.unknown.length);
    const texts = lane.differences.map((found, side) => `${DIFFERENCES[side]} ${amount(found)}`);
    lane.note.textContent = lane.isEmpty ? "in neither coding" : texts.join(", ");
    lane.canvas.setAttribute("aria-label", [lane.name, ...SIDES.map((side, i) => `${side}: ${count(lane.sides[i])}`), ...texts].join(", "));
  }

  const plural = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;

  function amount(found) {
    const spans = found.filter(({ point }) => point === undefined), points = found.length - spans.length;
    const seconds = `${spans.reduce((sum, { start, stop }) => sum + stop - start, 0).toFixed(1)} s`;
    if (!points) return seconds;
    return (spans.length ? `${seconds} and ` : "") + plural(points, "point");
  }

  const count = ({ bouts, points }) => plural(bouts.length, "bout") + (points.length ? `, ${plural(points.length, "point")}` : "");

  function choose(row) {
    const film = films[row.dataset.film], name = row.querySelector("button").textContent;
    for (const other of filmRows) {
      other.classList.toggle("now", other === row);
      other.querySelector("button").tabIndex = other === row ? 0 : -1;
      if (other === row) other.setAttribute("aria-current", "true"); else other.removeAttribute("aria-current");
    }
    byId("film").textContent = name;
    byId("video").setAttribute("aria-label", name);
    byId("unknown").hidden = film.sources.length > 0;
    byId("failed").hidden = !film.sources.length;
    byId("failed").querySelector("code").textContent = film.sources[0];
    notCompared = subtract([[-Infinity, Infinity]], film.compared);
    for (const lane of lanes) fill(lane, film);
    showLanes();
    player.open({ seconds: Math.max(film.seconds, step), step, sources: film.sources });
  }

  // ---- lanes

  function addLane(name, action) {
    const row = element("div", "", byId("lanes"), "lane"), label = element("label", "", element("span", "", row, "label"));
    const box = element("input", "", label), canvas = document.createElement("canvas");
    Object.assign(box, { type: "checkbox", checked: true, autocomplete: "off" });
    element("b", name, label).title = name;
    const note = element("span", "", row.firstChild, "note");
    canvas.setAttribute("role", "img");
    row.append(canvas);
    box.addEventListener("change", update);
    return { name, action, row, box, note, canvas };
  }

  function draw() {
    lanes.filter((lane) => !lane.row.hidden).forEach(drawLane);
  }

  function drawLane(lane) {
    const { context, width, height } = prepareCanvas(lane.canvas), gap = 3, rowHeight = (height - 3 * gap) / 2;
    const xOf = (time) => clamp(position(player.view, time, width), -10, width + 10);
    const rectangle = (start, stop, top, least = 0) => context.fillRect(xOf(start), top, Math.max(least, xOf(stop) - xOf(start)), rowHeight);
    const lines = ticks(player.view, width).times, pattern = hatching(context);
    lane.sides.forEach(({ bouts, points, unknown }, side) => {
      const top = gap + side * (rowHeight + gap), { both, only } = colors[side], found = lane.differences[side];
      context.fillStyle = cssColor("--track");
      context.fillRect(0, top, width, rowHeight);
      context.fillStyle = cssColor("--grid");
      for (const time of lines) context.fillRect(position(player.view, time, width) - 0.5, top, 1, rowHeight);
      context.fillStyle = both;
      for (const [start, stop] of bouts) rectangle(start, stop, top, LEAST_WIDTH);
      context.fillStyle = only;
      for (const { start, stop, point, isWhole } of found) if (point === undefined) rectangle(start, stop, top, isWhole ? LEAST_WIDTH : 0);
      for (const [start, stop] of [...notCompared, ...unknown]) {
        context.fillStyle = "rgb(255 255 255 / 60%)";
        rectangle(start, stop, top);
        context.fillStyle = pattern;
        rectangle(start, stop, top);
      }
      for (const time of points) {
        context.fillStyle = found.some(({ start, stop }) => start <= time && time <= stop) ? only : both;
        context.fillRect(position(player.view, time, width) - POINT_WIDTH / 2, top, POINT_WIDTH, rowHeight);
      }
    });
  }

  // Return the lines of the tooltip.
  function describe(canvas, time) {
    const lane = lanes.find((item) => item.canvas === canvas);
    if (!lane) return [clock(time)];
    const reach = (POINT_WIDTH / canvas.clientWidth) * player.view.span;
    const says = ({ bouts, points, unknown }) => {
      const bout = spanAt(bouts, time), point = points.find((moment) => Math.abs(moment - time) <= reach);
      if (point !== undefined) return `point event at ${clock(point)}`;
      if (bout) return `${clock(bout[0])} to ${clock(bout[1])}`;
      return spanAt(unknown, time) ? "not known, as a start or stop is missing" : "no";
    };
    const lines = [`${clock(time)} ${lane.name}`, ...SIDES.map((side, i) => `${side}: ${says(lane.sides[i])}`)];
    const found = lane.differences.flat().find(({ start, stop }) => start <= time && time < stop);
    if (found) lines.push(`${DIFFERENCES[found.side]}: ${duration(found)}`);
    if (spanAt(notCompared, time)) lines.push("not compared");
    return lines;
  }

  const duration = ({ start, stop, point }) => (point === undefined ? `${(stop - start).toFixed(1)} s` : "point event");

  // ---- differences

  function update() {
    const least = Number(byId("least").value) || step;
    const isLong = ({ start, stop, point }) => point !== undefined || stop - start >= least - 1e-9;
    const ticked = lanes.filter((lane) => lane.box.checked);
    differences = ticked.flatMap((lane) => lane.differences.flat()).filter(isLong).sort((a, b) => a.at - b.at);
    for (const lane of lanes) lane.row.classList.toggle("off", !lane.box.checked);
    byId("every").checked = ticked.length === lanes.length;
    byId("every").indeterminate = ticked.length > 0 && ticked.length < lanes.length;
    byId("previous").disabled = byId("next").disabled = !differences.length;
    show();
  }

  const jump = (direction) => player.jump(differences.map(({ at }) => at), direction);

  // Show which differences there are at the current time.
  function show() {
    const time = player.now + TOLERANCE, here = differences.filter(({ start, stop }) => start <= time && time < stop);
    const names = here.map((found) => `${found.lane.name} ${DIFFERENCES[found.side]} (${duration(found)})`);
    const text = here.length ? `${differences.indexOf(here.at(-1)) + 1} of ${plural(differences.length, "difference")}: ${names.join(", ")}` : plural(differences.length, "difference");
    if (byId("difference").textContent !== text) byId("difference").textContent = text; // else screen readers repeat it
  }

  function showLanes() {
    const empty = lanes.filter((lane) => lane.isEmpty);
    for (const lane of lanes) lane.row.hidden = lane.isEmpty && !byId("empty").checked;
    byId("number").textContent = empty.length;
    byId("empty").disabled = !empty.length;
    update();
  }

  for (const [id, direction] of [["previous", -1], ["next", 1]]) byId(id).addEventListener("click", () => jump(direction));
  byId("least").addEventListener("change", update);
  byId("every").addEventListener("change", ({ target }) => {
    for (const lane of lanes) lane.box.checked = target.checked;
    update();
  });
  byId("empty").addEventListener("change", () => {
    showLanes();
    player.redraw();
  });

  // ---- tables

  const filmTable = byId("films").querySelector("tbody"), filmRows = [...filmTable.rows];
  const collator = new Intl.Collator("en", { numeric: true });

  // Let the headings of a table sort its rows: by name, or by number with missing numbers last. Return a function to do so.
  function makeSortable(table) {
    const buttons = [...table.querySelectorAll("[data-sort]")], body = table.tBodies[0];
    const compare = (a, b, direction) => {
      if (a.dataset.value === undefined) return direction * collator.compare(a.textContent, b.textContent);
      if (!a.dataset.value || !b.dataset.value) return !a.dataset.value - !b.dataset.value;
      return direction * (a.dataset.value - b.dataset.value);
    };
    let column = null, direction = 1;
    function sort(newColumn, newDirection) {
      [column, direction] = [newColumn, newDirection];
      body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], direction)));
      markOrder(buttons, column, direction);
    }
    for (const button of buttons) {
      const own = button.dataset.sort;
      button.addEventListener("click", () => sort(own, own === column ? -direction : own === "0" ? 1 : -1));
    }
    return sort;
  }

  makeSortable(byId("actions").querySelector("table"));
  makeSortable(byId("films").querySelector("table"))("1", 1); // the film with the lowest kappa first

  filmTable.addEventListener("click", (event) => choose(event.target.closest("tr")));
  filmTable.addEventListener("keydown", (event) => {
    const direction = { ArrowUp: -1, ArrowDown: 1 }[event.key], rows = [...filmTable.rows].filter((row) => !row.hidden);
    const next = direction && rows[rows.indexOf(event.target.closest("tr")) + direction];
    if (!direction || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (!next) return;
    choose(next);
    next.querySelector("button").focus();
  });
  byId("find")?.addEventListener("input", ({ target }) => {
    for (const row of filmRows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(target.value.trim().toLowerCase());
  });
  byId("more")?.addEventListener("click", ({ target }) => {
    for (const row of byId("confusions").querySelectorAll("tr")) row.hidden = false;
    target.hidden = true;
  });

  choose(filmTable.rows[0]);
  document.documentElement.dataset.drawn = String(lanes.length);
})();
