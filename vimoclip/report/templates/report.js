"use strict";
// Draws the plots from the JSON in the page; fits them to a narrow screen and to paper; changes the picked class.
(() => {
  const PAPER_WIDTH = 680; // pixels: an A4 sheet between its margins
  const NARROW_WIDTH = 520;
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const hasMouse = window.matchMedia("(pointer: fine)").matches; // on a touch screen a drag scrolls the page
  const font = { family: "system-ui, sans-serif", size: 12, color: "#222222" };

  function makeLayout(figure, element) {
    const layout = structuredClone(figure.layout);
    const narrow = element.clientWidth < NARROW_WIDTH;
    if (narrow && figure.zoom) {
      layout.height = Math.min(layout.height, Math.round(element.clientWidth * 1.25));
      if (figure.data[0].x.length > 20) layout.xaxis.showticklabels = false; // too long for the screen; a tap shows them
    }
    element.style.height = `${layout.height}px`;
    Object.assign(layout, {
      font, autosize: true, paper_bgcolor: "#ffffff", dragmode: figure.zoom && hasMouse ? "zoom" : false,
      hoverlabel: { align: "left" },
    });
    for (const axis of ["xaxis", "yaxis", "yaxis2"]) {
      if (!layout[axis]) continue;
      layout[axis].fixedrange = !figure.zoom;
      if (narrow) layout[axis].tickfont = { size: figure.zoom ? 8 : 9 };
    }
    return layout;
  }

  function draw(id) {
    const element = document.getElementById(id), figure = plots[id];
    const config = { responsive: true, displaylogo: false, displayModeBar: figure.zoom ? true : false,
      modeBarButtons: [["zoomIn2d", "zoomOut2d", "pan2d", "resetScale2d"]], showTips: false };
    if (figure.zoom && element.clientWidth < NARROW_WIDTH) figure.data.forEach((trace) => { trace.showscale = false; });
    return Plotly.newPlot(element, figure.data, makeLayout(figure, element), config);
  }

  const ids = Object.keys(plots);
  const drawn = Promise.all(ids.map(draw));

  const picker = document.getElementById("class-picker");
  if (picker) picker.addEventListener("change", () => {
    const element = document.getElementById("class-curve"), figure = plots["class-curve"];
    Plotly.react(element, figure.choices[picker.selectedIndex], makeLayout(figure, element));
  });

  const resizePlots = (size) => ids.forEach((id) => {
    const element = document.getElementById(id);
    if (element.offsetParent || size.width) Plotly.relayout(element, size);
  });
  window.addEventListener("beforeprint", () => resizePlots({ width: PAPER_WIDTH, autosize: false }));
  window.addEventListener("afterprint", () => resizePlots({ width: null, autosize: true }));
  drawn.then(() => { document.documentElement.dataset.drawn = String(ids.length); });
})();
