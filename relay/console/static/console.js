// Live updates. Without this file every page works, but has to be loaded again to see what is new.
"use strict";

(() => {
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
      if (here) row.querySelector("a").focus();
      announce(text);
      return;
    }
    if (list.dataset.rows !== "top") return;
    const row = parsed(html);
    row.classList.add("new");
    const after = [...list.rows].find((other) => other.dataset.at <= row.dataset.at);
    list.insertBefore(row, after || null);
    document.getElementById("nothing")?.remove();
    list.closest("table").hidden = false;
    const last = list.rows[list.rows.length - 1];
    if (list.rows.length > Number(list.dataset.most) && !last.contains(document.activeElement)) last.remove();
    announce(text);
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
          if (!other || other.innerHTML === part.innerHTML) continue;
          if (part.contains(document.activeElement)) {
            // Nobody is to lose what the keyboard stands on; it is exchanged once that has moved on.
            part.addEventListener("focusout", swap, { once: true });
            continue;
          }
          const open = new Set([...part.querySelectorAll("details[open][id]")].map((each) => each.id));
          part.innerHTML = other.innerHTML;
          for (const each of part.querySelectorAll("details[id]")) each.open ||= open.has(each.id);
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
