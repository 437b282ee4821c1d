"use strict";
// What pages with a video above lanes share: the current time, the visible part, pointer and keys, and the video.
// The elements have the ids of timeline.html. A page gives `draw` (draw its lanes), `show` (show what there is at the
// current time), `describe` (canvas, time -> lines of the tooltip) and `keys` (key -> function).
function makePlayer({ draw, show, describe, keys }) {
  const video = byId("video"), box = byId("lanes"), axis = byId("axis"), playhead = byId("playhead"), tip = byId("tip");
  const scale = axis.querySelector("canvas"), pan = byId("pan");
  // times in seconds since the first frame; `step`: of the keys , and .
  const player = { now: 0, seconds: 1, step: 1, view: { from: 0, span: 1 }, open, redraw, seek, jump };
  const { view } = player;
  let origin = null; // currentTime of the first frame, null until it is loaded
  let playable = true, dragging = null;

  // Show another film from its start. `sources`: addresses of its video; without them the video is that of the page.
  function open({ seconds, step, sources }) {
    Object.assign(player, { now: 0, seconds, step });
    Object.assign(view, { from: 0, span: seconds });
    axis.setAttribute("aria-valuemax", seconds);
    byId("clock").replaceChildren();
    element("span", "", byId("clock"));
    element("small", ` / ${clock(seconds)}`, byId("clock"));
    if (sources) load(sources);
    else if (video.error || video.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) cannotPlay(true); // the event has passed
    else if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) ready();
    redraw();
    showTime();
  }

  function redraw() {
    drawAxis(scale, view, 6); // beside the playhead
    draw();
    const rest = player.seconds - view.span;
    pan.hidden = rest <= 1e-6;
    pan.value = rest > 0 ? (view.from / rest) * 1000 : 0;
    byId("out").disabled = byId("all").disabled = pan.hidden;
    byId("in").disabled = view.span <= shortest();
    place();
  }

  function place() {
    const x = position(view, player.now, scale.clientWidth);
    playhead.hidden = x < -0.5 || x > scale.clientWidth + 0.5;
    playhead.style.transform = `translateX(${scale.offsetLeft + x}px)`;
    playhead.style.height = `${box.scrollHeight}px`;
  }

  // ---- current time

  function showTime() {
    place();
    byId("clock").firstChild.textContent = clock(player.now);
    axis.setAttribute("aria-valuenow", player.now.toFixed(1));
    axis.setAttribute("aria-valuetext", clock(player.now));
    show();
  }

  function follow() {
    if (dragging || (player.now >= view.from && player.now <= view.from + view.span)) return;
    setView(player.now - view.span / 10, view.span);
  }

  function seek(time) {
    player.now = clamp(time, 0, player.seconds);
    if (playable && origin !== null) video.currentTime = origin + player.now;
    follow();
    showTime();
  }

  function fromVideo() {
    if (origin === null) return;
    player.now = clamp(video.currentTime - origin, 0, player.seconds);
    follow();
    showTime();
  }

  function run() {
    fromVideo();
    if (!video.paused && !video.ended) requestAnimationFrame(run);
  }

  function toggle() {
    if (!playable) return;
    if (video.paused) video.play().catch(() => {}); else video.pause();
  }

  // Seek the next or previous of some sorted times.
  function jump(times, direction) {
    const margin = video.paused ? 0.01 : 0.5; // during playback, a second press reaches the time before
    const found = direction > 0 ? times.find((time) => time > player.now + 0.01) : times.findLast((time) => time < player.now - margin);
    if (found !== undefined) seek(found);
  }

  // ---- visible part

  const shortest = () => Math.min(player.seconds, Math.max(2, 20 * player.step));

  function setView(from, span) {
    view.span = clamp(span, shortest(), player.seconds);
    view.from = clamp(from, 0, player.seconds - view.span);
    redraw();
  }

  function zoom(factor, center = player.now >= view.from && player.now <= view.from + view.span ? player.now : view.from + view.span / 2) {
    const span = clamp(view.span * factor, shortest(), player.seconds);
    setView(center - ((center - view.from) / view.span) * span, span);
  }

  // ---- pointer and keys

  const timeAt = (event) => {
    const { left, width } = scale.getBoundingClientRect();
    return view.from + clamp((event.clientX - left) / width, 0, 1) * view.span;
  };

  box.addEventListener("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS" || event.button) return;
    dragging = event.target;
    dragging.setPointerCapture(event.pointerId);
    seek(timeAt(event));
  });
  box.addEventListener("pointermove", (event) => {
    if (dragging) seek(timeAt(event));
    const over = dragging || event.target;
    tip.hidden = over.tagName !== "CANVAS";
    if (!tip.hidden) showTip(tip, event, describe(over, timeAt(event)));
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { dragging = null; });
  for (const end of ["pointerleave", "pointercancel"]) box.addEventListener(end, () => { tip.hidden = true; });

  box.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event));
    else if (Math.abs(sideways) > 0 && view.span < player.seconds) setView(view.from + (sideways / 800) * view.span, view.span);
    else return;
    event.preventDefault();
  }, { passive: false });

  const allKeys = {
    " ": toggle, "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    ArrowLeft: (event) => seek(player.now - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => seek(player.now + (event.shiftKey ? 10 : 1)),
    ",": () => seek(player.now - player.step), ".": () => seek(player.now + player.step),
    Home: () => seek(0), End: () => seek(player.seconds), ...keys,
  };
  // Does this element handle the key itself: a field, a button, a box that scrolls sideways?
  function isOwnKey({ target, key }) {
    const isBox = target.type === "checkbox", isWide = target.scrollWidth > target.clientWidth;
    if (target.tagName === "SELECT" || (target.tagName === "INPUT" && !isBox)) return true;
    if (target.getAttribute("role") === "region" && isWide && key.startsWith("Arrow")) return true;
    return key === " " && (isBox || target.tagName === "BUTTON");
  }
  // in the capture phase, as the controls of the video would handle the key as well
  document.addEventListener("keydown", (event) => {
    const key = allKeys[event.key];
    if (!key || event.ctrlKey || event.metaKey || event.altKey || isOwnKey(event)) return;
    event.preventDefault();
    event.stopPropagation();
    key(event);
  }, true);

  const buttons = { play: toggle, in: () => zoom(0.5), out: () => zoom(2), all: () => setView(0, player.seconds) };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
  pan.addEventListener("input", () => setView((pan.value / 1000) * (player.seconds - view.span), view.span));

  // ---- the video

  function load(sources) {
    origin = null;
    video.removeAttribute("src");
    video.replaceChildren();
    for (const address of sources) element("source", "", video).src = address;
    video.load();
    label();
    cannotPlay(!sources.length);
  }

  function cannotPlay(fails) {
    playable = !fails;
    video.hidden = fails;
    byId("unplayable").hidden = !fails;
    byId("play").disabled = fails;
  }

  function ready() {
    origin = video.currentTime; // 0 in most videos
    if (player.now > 0) seek(player.now); // a time chosen before the video was loaded
  }

  const label = () => { byId("play").textContent = video.paused ? "Play" : "Pause"; };
  video.addEventListener("error", ({ target }) => {
    if (target === video || target === video.lastElementChild) cannotPlay(true);
  }, true); // in the capture phase, as errors of a source do not bubble
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
  new ResizeObserver(redraw).observe(axis);
  return player;
}
