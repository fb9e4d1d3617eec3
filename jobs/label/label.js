// Asks about one sample after the other; answers stay in this page until they are saved as a file.
"use strict";
(() => {
  const { name, earlier, questions } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const known = new Set(questions.map((one) => one.uid));
  let answers = new Map(); // uid -> whether to keep, in the order in which they were given
  let here = 0;
  let saved = true;
  let remembers = true;

  const recall = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(name)) || [];
      answers = new Map(kept.filter(([uid, keep]) => known.has(uid) && typeof keep === "boolean"));
    } catch {
      remembers = false;
    }
  };

  const remember = () => {
    saved = false;
    try {
      localStorage.setItem(name, JSON.stringify([...answers]));
    } catch {
      remembers = false;
    }
  };

  const file = () => {
    const given = questions.filter((one) => answers.has(one.uid));
    const lines = given.map((one) => [one.uid, answers.get(one.uid), one.drawn].join(","));
    return ["uid,keep,drawn", ...earlier, ...lines, ""].join("\n");
  };

  const word = (keep) => (keep ? "keep" : "drop");

  const make = (tag, text, kind) => {
    const one = document.createElement(tag);
    one.textContent = text;
    if (kind) one.className = kind;
    return one;
  };

  const draw = () => {
    const one = questions[here];
    const answer = answers.get(one.uid);
    $("place").textContent = "Sample " + (here + 1) + " of " + questions.length;
    $("picture").hidden = !one.picture;
    if (one.picture) {
      $("picture").src = one.picture;
      [$("picture").width, $("picture").height] = one.size;
    }
    $("problem").hidden = Boolean(one.picture);
    $("problem").textContent = one.problem || "";
    $("caption").textContent = (one.caption ?? "(no caption)") + (one.bytes ? " ... (" + one.bytes + " bytes)" : "");
    $("caption").scrollTop = 0;
    $("answer").hidden = answer === undefined;
    $("answer").textContent = answer === undefined ? "" : "Your answer: " + word(answer);
    $("keep").setAttribute("aria-pressed", String(answer === true));
    $("drop").setAttribute("aria-pressed", String(answer === false));
    $("previous").disabled = here === 0;
    $("next").disabled = here === questions.length - 1;
    $("undo").disabled = answers.size === 0;
    $("count").textContent = answers.size + " of " + questions.length + " answered";
    $("bar").value = answers.size;
    $("file").value = file();
    $("forgetful").hidden = remembers;
    drawReview();
  };

  // What filters said could sway an answer, so it waits until there are no more to give.
  const drawReview = () => {
    const done = answers.size === questions.length;
    $("review").hidden = !done;
    $("cards").replaceChildren(...(done ? questions.map(card) : []));
  };

  const card = (one) => {
    const item = document.createElement("li");
    const left = document.createElement("div");
    if (one.picture) {
      const picture = document.createElement("img");
      picture.src = one.picture;
      picture.alt = "";
      left.append(picture);
    }
    const right = document.createElement("div");
    const votes = make("p", "", "votes");
    votes.append(...one.votes.map(([filter, vote]) => make("span", filter + ": " + vote, vote)));
    right.append(
      make("p", "You: " + word(answers.get(one.uid)) + "; P(keep) " + one.probability, ""),
      make("p", one.caption ?? "(no caption)", "text"),
      votes,
      make("p", one.where, "quiet"),
    );
    item.append(left, right);
    return item;
  };

  const go = (place) => {
    if (place < 0 || place >= questions.length) return;
    here = place;
    draw();
  };

  const say = (text) => {
    $("said").textContent = text;
  };

  const answer = (keep) => {
    const { uid } = questions[here];
    answers.delete(uid); // an answer that is changed is the latest
    answers.set(uid, keep);
    remember();
    const told = "Sample " + (here + 1) + ": " + word(keep) + ".";
    const rest = questions.map((_, step) => (here + 1 + step) % questions.length);
    const next = rest.find((place) => !answers.has(questions[place].uid));
    if (next !== undefined) here = next;
    draw();
    say(next === undefined ? told + " All are answered: save labels.csv." : told + " Now sample " + (here + 1) + ".");
  };

  const undo = () => {
    const last = [...answers.keys()].pop();
    if (last === undefined) return;
    answers.delete(last);
    remember();
    go(questions.findIndex((one) => one.uid === last));
    say("The answer to sample " + (here + 1) + " is taken back.");
  };

  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([file()], { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
    say("labels.csv with " + answers.size + " answers is saved where the browser puts its downloads.");
  };

  const keys = {
    k: () => answer(true),
    d: () => answer(false),
    u: undo,
    ArrowLeft: () => go(here - 1),
    ArrowRight: () => go(here + 1),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target === $("file")) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  $("keep").addEventListener("click", () => answer(true));
  $("drop").addEventListener("click", () => answer(false));
  $("previous").addEventListener("click", () => go(here - 1));
  $("next").addEventListener("click", () => go(here + 1));
  $("undo").addEventListener("click", undo);
  $("save").addEventListener("click", save);
  addEventListener("beforeunload", (event) => {
    if (!remembers && !saved) event.preventDefault();
  });

  recall();
  const first = questions.findIndex((one) => !answers.has(one.uid));
  go(Math.max(first, 0));
})();
