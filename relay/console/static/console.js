// Live updates, and times as they pass. Without this file every page works, but has to be loaded
// again to see what is new.
"use strict";

(() => {
  // "3 min ago" or "in 2 h", as words.py puts it; the full time in the reader's zone on hover.
  const UNITS = [["d", 86400, 172800], ["h", 3600, 3600], ["min", 60, 60], ["s", 1, 0]];
  const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const relative = (then) => {
    const seconds = (Date.now() - then) / 1000;
    const [unit, size] = UNITS.find(([, , least]) => Math.abs(seconds) >= least);
    const length = `${Math.floor(Math.abs(seconds) / size)} ${unit}`;
    return seconds >= 0 ? `${length} ago` : `in ${length}`;
  };
  const tick = () => {
    for (const each of document.querySelectorAll("time[datetime]")) {
      const then = Date.parse(each.dateTime);
      if (Number.isNaN(then)) continue;
      each.textContent = relative(then);
      each.title = FULL.format(then);
    }
  };
  tick();
  setInterval(tick, 5000);

  // Looked up each time: it is exchanged with its part of the page.
  const listed = () => document.querySelector("[data-rows]");
  const page = document.querySelector("[data-live]");
  const state = document.getElementById("live-state");
  const said = document.getElementById("live-said");
  if (!page || !window.EventSource) return;

  const SAY_EVERY = 4000; // ms between two announcements to screen readers
  const SWAP_EVERY = 2000; // ms between two loads of this page
  let news = [];
  let talking = false;
  let swapping = false;
  let again = false;

  const announce = (text) => {
    news.push(text);
    if (talking) return;
    talking = true;
    setTimeout(() => {
      said.textContent = news.length > 2 ? `${news.length} changes, last: ${news.at(-1)}` : news.join("; ");
      news = [];
      talking = false;
    }, SAY_EVERY / 8);
  };

  const parsed = (html) => {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    return holder.content.firstElementChild;
  };

  // A row that is known is exchanged where it stands; a new one comes on top, and the last one goes.
  const show = ({ id, html, text }) => {
    const list = listed();
    const old = document.getElementById(id);
    if (old) {
      const here = old.contains(document.activeElement);
      const row = parsed(html);
      old.replaceWith(row);
      tick();
      if (here) row.querySelector("a").focus();
      announce(text);
      return;
    }
    if (list.dataset.rows !== "top") return;
    const row = parsed(html);
    row.classList.add("new");
    const after = [...list.rows].find((other) => other.dataset.at <= row.dataset.at);
    list.insertBefore(row, after || null);
    tick();
    document.getElementById("nothing")?.remove();
    list.closest("table").hidden = false;
    const last = list.rows[list.rows.length - 1];
    if (list.rows.length > Number(list.dataset.most) && !last.contains(document.activeElement)) last.remove();
    announce(text);
  };

  // A part of the page without what passes by itself.
  const still = (part) => {
    const copy = part.cloneNode(true);
    for (const each of copy.querySelectorAll("time[datetime]")) {
      each.textContent = each.title = "";
    }
    for (const each of copy.querySelectorAll("details")) each.open = false;
    return copy.innerHTML;
  };

  // Loads this page again and exchanges its parts that have changed.
  const swap = async () => {
    if (swapping) {
      again = true;
      return;
    }
    swapping = true;
    again = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.redirected) location.reload();
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-swap]")) {
          const other = fresh.getElementById(part.id);
          if (!other || still(other) === still(part)) continue;
          if (part.contains(document.activeElement)) {
            // Nobody is to lose what the keyboard stands on; it is exchanged once that has moved on.
            part.addEventListener("focusout", swap, { once: true });
            continue;
          }
          const open = new Set([...part.querySelectorAll("details[open][id]")].map((each) => each.id));
          part.innerHTML = other.innerHTML;
          for (const each of part.querySelectorAll("details[id]")) each.open ||= open.has(each.id);
          tick();
          if (part.dataset.swap) announce(part.dataset.swap);
        }
      }
    } catch {
      // The next change tries again.
    }
    setTimeout(() => {
      swapping = false;
      if (again) swap();
    }, SWAP_EVERY);
  };

  const source = new EventSource(page.dataset.live);
  source.addEventListener("open", () => {
    state.textContent = "● live";
  });
  source.addEventListener("error", () => {
    state.textContent = source.readyState === EventSource.CLOSED ? "○ not live" : "○ reconnecting";
  });
  source.addEventListener("row", (event) => listed() && show(JSON.parse(event.data)));
  source.addEventListener("changed", swap);
  // What happened before the stream began, or more than could be passed on.
  source.addEventListener("missed", swap);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
})();
