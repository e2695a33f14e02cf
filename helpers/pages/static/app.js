"use strict";
// What moves: a job's log and curves, parts of other pages, an image that is dropped, a copy button.
const KEPT = 5000, CHANNELS = 2, PAUSE_MS = 2000;
document.documentElement.classList.add("moving");
const by = id => document.getElementById(id);

function say(text) {
  const problem = by("problem");
  problem.hidden = !text;
  if (problem.textContent !== text) problem.textContent = text;
}

// False while the part holds the keyboard's place, which new content would lose.
function swap(name, html) {
  const part = document.querySelector(`[data-part="${name}"]`);
  if (!part || part.innerHTML === html) return true;
  if (part.contains(document.activeElement)) return false;
  part.innerHTML = html;
  return true;
}

function follow(log) {
  const box = by("follow"), left = by("left-out");
  let after = log.dataset.after, ended = log.dataset.ended === "yes", shown = -1;
  const bottom = () => { if (box.checked) log.scrollTop = log.scrollHeight; };
  log.addEventListener("scroll", () => {
    const at = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (at !== box.checked && (at || log.scrollTop < shown)) box.checked = at;
    shown = log.scrollTop;
  });
  box.addEventListener("change", bottom);
  const apply = news => {
    say(news.problem);
    for (const [name, html] of Object.entries(news.parts)) swap(name, html);
    if (news.problem) return;
    if (news.reset) log.replaceChildren();
    const made = news.lines.slice(-KEPT).map(([, at, task, level, text]) => {
      const line = document.createElement("div"), time = document.createElement("time"), who = document.createElement("b");
      line.className = level.toLowerCase();
      time.textContent = at;
      who.textContent = task;
      line.append(time, " ", who, ` ${text}`);
      return line;
    });
    log.append(...made);
    for (let extra = log.childElementCount - KEPT; extra > 0; extra--) log.firstElementChild.remove();
    if (log.childElementCount) by("no-lines").hidden = true;
    const before = news.left_out;
    left.textContent = before === null ? "Many earlier lines are not shown." :
      before ? `${before.toLocaleString("en")} earlier lines are not shown.` : "";
    after = news.cursor;
    ended = news.ended;
    if (made.length) bottom();
  };
  const address = more => `${log.dataset.live}?${new URLSearchParams(
    { after, replica: log.dataset.replica, find: log.dataset.find, ...more })}`;
  const poll = async () => {
    while (!ended) {
      try {
        const answer = await fetch(address({ poll: 1 }));
        if (!answer.ok) throw new Error(answer.status === 401 ? "Open the console again." : answer.status);
        apply(await answer.json());
      } catch (error) { say(`The console does not answer (${error.message}); this page tries again.`); }
      await new Promise(go => setTimeout(go, PAUSE_MS));
    }
  };
  // A browser keeps six connections to a host for all its tabs: two tabs stream, the others poll.
  const stream = () => new Promise(done => {
    const source = new EventSource(address({}));
    const late = setTimeout(() => { source.close(); done(); }, 8000);  // a proxy that holds events back
    source.onmessage = event => { clearTimeout(late); apply(JSON.parse(event.data)); if (ended) { source.close(); done(); } };
    source.onerror = () => { clearTimeout(late); source.close(); done(); };
  });
  const begin = async channel => {
    if (channel === CHANNELS || !navigator.locks) return poll();
    await navigator.locks.request(`console-${channel}`, { ifAvailable: true },
      lock => lock ? stream().then(poll) : begin(channel + 1));
  };
  // What a job leaves, and what can't be done any more, is on its page once it has ended.
  const settle = async () => { while (!await refresh()) await new Promise(go => setTimeout(go, PAUSE_MS)); };
  bottom();
  if (!ended) begin(0).then(settle);
}

async function refresh() {
  if (document.hidden) return false;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    say("");
    return [...page.querySelectorAll("[data-part]")].map(part => swap(part.dataset.part, part.innerHTML)).every(Boolean);
  } catch (error) { say(`The cloud does not answer (${error.message}); this page tries again.`); }
  return false;
}

function takeImage(area) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
  input.setAttribute("aria-label", "Image file");
  const take = file => {
    const reader = new FileReader();
    reader.onload = () => { area.value = reader.result.split(",")[1]; };
    if (file) reader.readAsDataURL(file);
  };
  input.onchange = () => take(input.files[0]);
  area.before(input);
  area.ondragover = event => { event.preventDefault(); area.classList.add("over"); };
  area.ondragleave = () => area.classList.remove("over");
  area.ondrop = event => { event.preventDefault(); area.classList.remove("over"); take(event.dataTransfer.files[0]); };
}

for (const text of document.querySelectorAll("[data-copy]")) {
  const copy = Object.assign(document.createElement("button"), { className: "copy", textContent: "Copy" });
  const words = text.textContent;
  copy.onclick = async () => { await navigator.clipboard.writeText(words); copy.textContent = "Copied"; };
  text.before(copy);
}
document.querySelectorAll("[data-image]").forEach(takeImage);
if (by("log")) follow(by("log"));
else if (document.querySelector("[data-part]")) setInterval(refresh, 5000);
