"use strict";
// Scores, bouts at any threshold as find_bouts of bouts.py defines them, and their CSV file.
const SCORE_ONE = 65000, NO_SCORE = 65535; // codes of the score 1 and of no score, as in page.py

// Return the codes of all scores, action by action.
const unpackScores = (text) => new Uint16Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);

// A code stands for the scores from code to code + 1; the middle halves the error.
const scoreOf = (code) => (code === NO_SCORE ? null : Math.min((code + 0.5) / SCORE_ONE, 1));

// Return [start, stop, score] of each bout of an action. `codes`: of its windows; `threshold`: in whole thousandths, so that
// comparing codes decides as comparing the scores does.
function findBouts(data, codes, threshold) {
  const { edges } = data, least = Math.round(threshold * SCORE_ONE), runs = [];
  const between = (from, to) => Number((edges[to] - edges[from]).toFixed(6));
  for (let window = 0, open = false; window < codes.length; window++) {
    const high = codes[window] !== NO_SCORE && codes[window] >= least, last = runs.at(-1);
    if (!high) open = false;
    else if (open || (last && between(last[1], window) <= data.max_gap)) { last[1] = window + 1; open = true; }
    else { runs.push([window, window + 1]); open = true; }
  }
  const shortest = Math.min(data.min_length, edges.at(-1));
  return runs
    .filter(([first, last]) => between(first, last) >= shortest && between(first, last) > 0)
    .map(([first, last]) => [edges[first], edges[last], meanScore(codes.subarray(first, last))]);
}

// Return the mean score, rounded to what the codes resolve.
function meanScore(codes) {
  const scores = Array.from(codes, scoreOf).filter((score) => score !== null);
  return Number((scores.reduce((sum, score) => sum + score, 0) / scores.length).toFixed(4));
}

// Return rows as CSV, with numbers as in the tables of predict.py.
function formatCsv(rows) {
  const cell = (value) => {
    if (typeof value === "number") return value.toFixed(6).replace(/\.?0+$/, "");
    return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}
